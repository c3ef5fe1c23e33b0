//! Everything that works on objects, over any API server: controllers, autoscaler, gateway, binder, node.
//!
//! Standalone and attached to a cluster this is the same; the client is the only difference.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_api::config::Configs;
use kinglet_api::networking::Ingress;
use kinglet_image::Images;
use kinglet_node::{Node, NodeHandle};
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{Caches, Context};
use kinglet_serving::configs::LiveConfigs;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::digests::Digests;
use crate::listeners;
use crate::request_logs;
use crate::waterfall::Waterfalls;

/// Updates that may wait for the data plane: a burst of a thousand Services.
const UPDATES_MAX: usize = 4096;
/// Reports that may wait for the autoscaler; statistics are dropped first, pokes never.
const REPORTS_MAX: usize = 4096;
/// The image that the node knows as its own queue-proxy and never starts.
const QUEUE_IMAGE: &str = "samples.kinglet/queue-proxy";
/// A slow API server must not keep the gateway closed for ever.
const FIRST_ROUTES_MAX: Duration = Duration::from_secs(15);
/// Controllers end at their next await; what they did not finish, the next life does.
const DECIDING_STOP_MAX: Duration = Duration::from_secs(2);
const NODE_NAME: &str = "kinglet";
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Building the first table takes milliseconds; this is for a machine in trouble.
const ROUTES_MAX: Duration = Duration::from_secs(5);
/// Labels by which the cold path looks objects up.
const INDEXED: [&str; 4] = [
    "serving.knative.dev/revision",
    "serving.knative.dev/configuration",
    "networking.internal.knative.dev/serverlessservice",
    "kubernetes.io/service-name",
];

/// What the machine is made of.
pub(crate) struct MachineOptions {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) data: PathBuf,
    pub(crate) domain: String,
    pub(crate) images: Images,
    /// External listener of the gateway.
    pub(crate) http: TcpListener,
    /// Service addresses, node ports, and where pods reach the API.
    pub(crate) network: kinglet_node::NetworkOptions,
    pub(crate) ca_pem: Option<String>,
    /// Deployments, endpoints, garbage and the like, where no cluster does them.
    pub(crate) parts: kinglet_workloads::Parts,
}

/// The running machine.
pub(crate) struct Machine {
    pub(crate) caches: Caches,
    pub(crate) configs: LiveConfigs,
    pub(crate) gateway: kinglet_dataplane::Handle,
    pub(crate) node: NodeHandle,
    pub(crate) images: Images,
    pub(crate) waterfalls: Waterfalls,
    deciding: Tasks,
}

/// Starts everything; the order is the flow of objects backwards, so that each part finds its reader ready.
pub(crate) async fn start(options: MachineOptions) -> anyhow::Result<Machine> {
    let MachineOptions {
        client,
        clock,
        tasks,
        data,
        domain,
        images,
        http,
        network,
        ca_pem,
        parts,
    } = options;
    let deciding = tasks.child();
    let caches = Caches::with_indexed_labels(client, deciding.clone(), clock.clone(), &INDEXED);
    let context = Context::new(&caches);
    let waterfalls = Waterfalls::follow(&caches, &clock);
    let configs = LiveConfigs::follow(&context, Configs::for_domain(&domain));

    let (updates, updates_in) = mpsc::channel(UPDATES_MAX);
    let (reports, reports_in) = mpsc::channel(REPORTS_MAX);
    let (applied, applied_in) = watch::channel(0);
    let mut first_routes = applied_in.clone();
    let mut applied_seen = applied_in.clone();
    let (dataplane, gateway) = kinglet_dataplane::Dataplane::new(
        kinglet_dataplane::Options::default(),
        updates_in,
        reports,
        applied,
        clock.clone(),
    );
    // Outlives the deciders, so that what they say last is still applied; requests go on meanwhile.
    tasks.spawn("data plane", dataplane.run(tasks.token()));

    let draining = gateway.clone();
    let node = Node::start(kinglet_node::Options {
        data_dir: data.join("node"),
        node_name: NODE_NAME.to_owned(),
        context: context.named("kubelet"),
        images: images.clone(),
        drain: Arc::new(move |address| Box::pin(draining.drain_pod(address))),
        queue_image_prefixes: vec![QUEUE_IMAGE.to_owned()],
        network,
        ca_pem: ca_pem.clone().unwrap_or_default(),
        helper: PathBuf::from("/proc/self/exe"),
        parked: kinglet_node::PARKED_DEFAULT,
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
    })
    .await
    .context("starting the node")?;
    images.leave_by(node.egress());
    let bridge = IpAddr::V4(node.gateway_ip());

    // Until the Node object says what it has: nothing, so that nobody is bound too early.
    let capacity = kinglet_workloads::Capacity {
        cpu_millis: 0,
        memory_bytes: 0,
        pods: 0,
        not_started: vec![QUEUE_IMAGE.to_owned()],
    };
    let workloads = kinglet_workloads::Options {
        node_name: NODE_NAME.to_owned(),
        capacity,
        root_ca_pem: ca_pem,
        parts,
    };
    kinglet_workloads::run(&context, workloads);
    let activator = kinglet_serving::autoscale::Activator {
        ip: bridge,
        pod: "kinglet".to_owned(),
        node: Some(NODE_NAME.to_owned()),
    };
    kinglet_serving::start(
        &context,
        kinglet_serving::ServingOptions {
            configs: Configs::for_domain(&domain),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            gateway: kinglet_serving::ingress::GatewayNames::new(CLUSTER_DOMAIN),
            activators: vec![activator],
            digests: Digests::shared(&images),
            updates,
            reports: reports_in,
            applied: applied_in,
        },
    );

    // A restarted gateway knows its routes before the first request, or it would answer 404 for a moment.
    caches.wait_synced().await;
    if !context.cache::<Ingress>().is_empty()
        && tokio::time::timeout(ROUTES_MAX, applied_seen.wait_for(|version| *version > 0))
            .await
            .is_err()
    {
        tracing::warn!("the routes of the last life are not in force yet");
    }
    let inside = listeners::bind_inside(bridge)?;
    // Who asks right after a restart must not be told that his host is unknown.
    if tokio::time::timeout(
        FIRST_ROUTES_MAX,
        first_routes.wait_for(|version| *version > 0),
    )
    .await
    .is_err()
    {
        tracing::warn!("the gateway begins before its routes are known");
    }
    for listener in inside {
        gateway.serve(listener, kinglet_dataplane::Listener::ClusterLocal);
    }
    gateway.serve(http, kinglet_dataplane::Listener::External);
    request_logs::follow(&caches, &configs, &gateway, &node, &tasks);
    Ok(Machine {
        caches,
        configs,
        gateway,
        node,
        images,
        waterfalls,
        deciding,
    })
}

impl Machine {
    /// Stops deciding, then the containers, until `deadline` at the latest. Requests must have been drained before.
    pub(crate) async fn stop(&self, deadline: tokio::time::Instant) {
        self.deciding.shutdown(DECIDING_STOP_MAX).await;
        self.node.stop(deadline).await;
    }
}
