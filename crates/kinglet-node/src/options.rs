//! What a node needs to be told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kinglet_image::Images;
use kinglet_reconcile::Context;

/// Waits until the data plane has no request in flight to a pod (the queue-proxy's `/wait-for-drain`).
/// The node bounds it by the pod's grace period.
pub type Drain = Arc<dyn Fn(IpAddr) -> BoxFuture<'static, ()> + Send + Sync>;

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
