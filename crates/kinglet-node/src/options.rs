//! What a node needs to be told.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kinglet_image::Images;
use kinglet_reconcile::Context;

/// Waits until the data plane has no request in flight to a pod (the queue-proxy's `/wait-for-drain`).
/// The node bounds it by the pod's grace period.
pub type Drain = Arc<dyn Fn(IpAddr) -> BoxFuture<'static, ()> + Send + Sync>;

/// Where queue-proxies are processes of their own: runs the one of a pod until what it answers with is dropped.
pub type QueueProxies = Arc<dyn Fn(ProxiedPod) -> Box<dyn Send + Sync> + Send + Sync>;

/// A pod that has a queue-proxy, once its first container runs.
#[derive(Debug)]
pub struct ProxiedPod {
    /// The Pod as the API has it; its status may lag behind.
    pub pod: Arc<Pod>,
    /// Its address.
    pub address: Ipv4Addr,
    /// The network namespace of its containers.
    pub network: OwnedFd,
}

/// Everything that [`crate::Node::start`] needs.
#[derive(Clone)]
pub struct Options {
    /// The node's own directory below the data directory; names on the host derive from it.
    pub data_dir: PathBuf,
    /// Name of the Node object; Pods bound to it are run here.
    pub node_name: String,
    /// Caches, client, clock, tasks, Events.
    pub context: Context,
    /// The machine's images.
    pub images: Images,
    /// See [`Drain`].
    pub drain: Drain,
    /// Prefixes of the queue-proxy's image: such a container is answered, not started.
    pub queue_image_prefixes: Vec<String>,
    /// See [`QueueProxies`]; without it the data plane does the work of all queue-proxies.
    pub queue_proxies: Option<QueueProxies>,
    /// Service addresses, node ports, and the port on which the root serves the API on
    /// [`crate::NodeHandle::gateway_ip`].
    pub network: crate::NetworkOptions,
    /// PEM of the CA that signed the API server's certificate.
    pub ca_pem: String,
    /// This binary (`/proc/self/exe`); it must hand `node-helper` calls to [`crate::helper`].
    pub helper: PathBuf,
    /// Sandboxes kept ready ahead of need.
    pub parked: usize,
    /// DNS zone of the cluster, usually `cluster.local`.
    pub cluster_domain: String,
}

/// Sandboxes kept ready when nobody says otherwise: a cold start of a few Services at once never waits for one.
pub const PARKED_DEFAULT: usize = 4;
