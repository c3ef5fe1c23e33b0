//! Everything that works on objects, over any API server: controllers, autoscaler, gateway, binder, node.
//!
//! Standalone and attached to a cluster this is the same; the client is the only difference.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_api::autoscaling::{Metric, PodAutoscaler};
use kinglet_api::config::Configs;
use kinglet_api::networking::{Ingress, ServerlessService};
use kinglet_api::serving::Revision;
use kinglet_decide::feed::{Report, Update};
use kinglet_image::Images;
use kinglet_node::{Node, NodeHandle};
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{Caches, Context, Gate};
use kinglet_serving::configs::LiveConfigs;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::apart::{self, Apart};
use crate::digests::Digests;
use crate::heap;
use crate::listeners;
use crate::request_logs;
use crate::waterfall::Waterfalls;
use tokio_util::sync::CancellationToken;

/// Updates that may wait for the data plane: a burst of a thousand Services.
const UPDATES_MAX: usize = 4096;
/// Reports that may wait for the autoscaler; statistics are dropped first, pokes never.
const REPORTS_MAX: usize = 4096;
/// The image that the node knows as its own queue-proxy and never starts.
const QUEUE_IMAGE: &str = "samples.kinglet/queue-proxy";
/// What an API server may take to list everything that is watched, and the gateway to take its first routes: a large
/// cluster takes seconds.
const LISTINGS_MAX: Duration = Duration::from_secs(60);
/// Controllers end at their next await; what they did not finish, the next life does.
const DECIDING_STOP_MAX: Duration = Duration::from_secs(2);
/// A start that fails half way takes pods of the last life off the host again.
const ABORT_MAX: Duration = Duration::from_secs(15);
const NODE_NAME: &str = "kinglet";
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Labels by which the cold path looks objects up; Deployments find their ReplicaSets by the Revision's uid.
const INDEXED: [&str; 5] = [
    "serving.knative.dev/revision",
    "serving.knative.dev/revisionUID",
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
    /// Service addresses, node ports, and where pods reach the API.
    pub(crate) network: kinglet_node::NetworkOptions,
    pub(crate) ca_pem: Option<String>,
    /// Signs certificates for hosts, where no cert-manager does.
    pub(crate) browsers: Option<kinglet_process::pki::Browsers>,
    /// Deployments, endpoints, garbage and the like, where no cluster does them.
    pub(crate) parts: kinglet_workloads::Parts,
    /// The data plane in processes of its own.
    pub(crate) apart: Option<apart::Shape>,
}

/// The gateway's ports on the bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InsidePorts {
    /// Another one than the usual.
    pub(crate) http: Option<u16>,
    /// The one for https, where there is one.
    pub(crate) https: Option<u16>,
}

/// Listeners of the gateway for requests from outside.
pub(crate) struct Outside {
    pub(crate) http: TcpListener,
    pub(crate) https: Option<TcpListener>,
}

/// The running machine.
pub(crate) struct Machine {
    pub(crate) caches: Caches,
    pub(crate) configs: LiveConfigs,
    pub(crate) gateway: kinglet_dataplane::Handle,
    pub(crate) node: NodeHandle,
    pub(crate) images: Images,
    pub(crate) waterfalls: Waterfalls,
    apart: Option<Apart>,
    deciding: Tasks,
}

/// How controllers and data plane reach each other.
pub(crate) struct Channels {
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) reports: mpsc::Receiver<Report>,
    /// The version of the routes in force.
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) gateways: kinglet_serving::ingress::Gateways,
}

/// Starts everything; the order is what a request needs first after a restart: routes, the way to a pod, all the rest.
/// A start that is told to stop meanwhile gives a machine whose gateway is closed.
pub(crate) async fn start(
    options: MachineOptions,
    outside: Outside,
    stop: &CancellationToken,
) -> anyhow::Result<Machine> {
    let (clock, tasks) = (&options.clock, &options.tasks);
    let deadline = Instant::now() + LISTINGS_MAX;
    let deciding = tasks.child();
    let caches = Caches::with_indexed_labels(
        options.client.clone(),
        deciding.clone(),
        clock.clone(),
        &INDEXED,
    );
    begin_listings(&caches);
    heap::follow(&caches, &deciding);
    let https_port = match &outside.https {
        Some(listener) => Some(listener.local_addr()?.port()),
        None => None,
    };
    let (gateway, mut channels) = start_data_plane(clock, tasks, https_port);
    let apart = match &options.apart {
        Some(shape) => Some(Apart::open(shape, &mut channels, tasks)?),
        None => None,
    };
    let applied = channels.applied.clone();
    let ports = InsidePorts {
        http: options.network.gateway_port,
        https: options.network.gateway_https,
    };
    let gate = open_after_routes(&deciding, applied.clone());
    let context = Context::new(&caches).behind(gate);
    let waterfalls = Waterfalls::follow(&caches, clock);
    let configs = LiveConfigs::follow(&context, Configs::for_domain(&options.domain));
    let (cleared, pods_are_current) = watch::channel(false);
    let (updates, gateways) = (channels.updates, channels.gateways);
    let routes = kinglet_serving::start_routes(&context, updates, gateways, pods_are_current);
    let told = routes.backends_told();
    let bounds = Bounds {
        caches: &caches,
        deadline,
        stop,
    };
    let https_inside = outside.https.is_some() && apart.is_none();
    // Gateways of other processes take the listeners over.
    let (own, others) = match &apart {
        None => (Some(outside), None),
        Some(_) => (None, Some(outside)),
    };
    let (opened, node) = tokio::join!(
        bounds.within(serve_outside(&gateway, own, applied)),
        async {
            let node = start_node(&options, &context, &gateway, apart.as_ref()).await?;
            options.images.leave_by(node.egress());
            let mut of_node = node.cleared();
            deciding.spawn_cancellable("cleared-pods", async move {
                // A node that ends before has no pods.
                let _ = of_node.wait_for(|cleared| *cleared).await;
                cleared.send_replace(true);
            });
            start_controllers(&options, &context, &configs, routes, channels.reports);
            anyhow::Ok(node)
        }
    );
    let machine = Machine {
        caches: caches.clone(),
        configs,
        gateway,
        node: node?,
        images: options.images,
        waterfalls,
        apart,
        deciding,
    };
    let opened = match opened {
        Ok(()) => {
            bounds
                .within(machine.open_inside(others, https_inside, ports, told))
                .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = opened {
        machine.stop(Instant::now() + ABORT_MAX).await;
        return Err(error);
    }
    request_logs::follow(
        &machine.caches,
        &machine.configs,
        &machine.gateway,
        &machine.node,
        tasks,
    );
    Ok(machine)
}

/// Begins to list what requests need, in the order in which they need it: routes, the way from a waiting request to a
/// running pod. Everything else is listed behind it, as its controllers ask for it.
fn begin_listings(caches: &Caches) {
    caches.cache::<Ingress>();
    caches.cache::<Service>();
    caches.cache::<Secret>();
    caches.cache::<Revision>();
    caches.cache::<PodAutoscaler>();
    caches.cache::<Pod>();
    caches.cache::<ServerlessService>();
    caches.cache::<Metric>();
    caches.cache::<Deployment>();
    caches.cache::<ReplicaSet>();
    caches.cache::<EndpointSlice>();
}

/// How long the parts of a start may wait for each other.
struct Bounds<'a> {
    caches: &'a Caches,
    deadline: Instant,
    stop: &'a CancellationToken,
}

impl Bounds<'_> {
    /// Waits for a part; not longer than the start may take, and not when it is to stop.
    async fn within(&self, part: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            done = tokio::time::timeout_at(self.deadline, part) => {
                done.unwrap_or_else(|_| Err(too_late(self.caches)))
            }
            () = self.stop.cancelled() => Ok(()),
        }
    }
}

fn too_late(caches: &Caches) -> anyhow::Error {
    let (missing, seconds) = (caches.incomplete(), LISTINGS_MAX.as_secs());
    if missing.is_empty() {
        return anyhow::anyhow!("the gateway did not take its first routes within {seconds} s");
    }
    anyhow::anyhow!(
        "the API server did not list {} within {seconds} s: look into the log for its answers, and whether the user of the kubeconfig may list and watch them",
        missing.join(", "),
    )
}

/// Lets requests in from outside as soon as the routes are known: who asks right after a restart waits until then, and
/// must not be told that his host is unknown.
async fn serve_outside(
    gateway: &kinglet_dataplane::Handle,
    own: Option<Outside>,
    mut applied: watch::Receiver<u64>,
) -> anyhow::Result<()> {
    gateway.set_backends_told(false);
    // A data plane that is gone stops the process by itself.
    let _ = applied.wait_for(|version| *version > 0).await;
    if let Some(Outside { http, https }) = own {
        gateway.serve(http, kinglet_dataplane::Listener::External);
        if let Some(https) = https {
            gateway.serve_tls(https, kinglet_dataplane::Listener::External)?;
        }
    }
    Ok(())
}

/// A gate before the controllers that opens when the gateway has its first routes.
fn open_after_routes(tasks: &Tasks, mut applied: watch::Receiver<u64>) -> Gate {
    let (opener, gate) = Gate::closed();
    tasks.spawn_cancellable("gate", async move {
        // A data plane that is gone opens it, too.
        let _ = applied.wait_for(|version| *version > 0).await;
        opener.open();
    });
    gate
}

fn start_data_plane(
    clock: &Clock,
    tasks: &Tasks,
    https_port: Option<u16>,
) -> (kinglet_dataplane::Handle, Channels) {
    let (updates, updates_in) = mpsc::channel(UPDATES_MAX);
    let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
    let (applied_out, applied) = watch::channel(0);
    let (dataplane, gateway) = kinglet_dataplane::Dataplane::new(
        kinglet_dataplane::Options {
            owner: tasks.clone(),
            https_port,
            ..kinglet_dataplane::Options::default()
        },
        updates_in,
        reports_out,
        applied_out,
        clock.clone(),
    );
    // Outlives the deciders, so that what they say last is still applied; requests go on meanwhile.
    tasks.component("data-plane", dataplane.run(tasks.token()));
    let channels = Channels {
        updates,
        reports,
        gateways: kinglet_serving::ingress::Gateways::of_process(NODE_NAME, applied.clone()),
        applied,
    };
    (gateway, channels)
}

async fn start_node(
    options: &MachineOptions,
    context: &Context,
    gateway: &kinglet_dataplane::Handle,
    apart: Option<&Apart>,
) -> anyhow::Result<NodeHandle> {
    let draining = gateway.clone();
    let drain: kinglet_node::Drain = match apart {
        Some(apart) => apart.drain(),
        None => Arc::new(move |address| Box::pin(draining.drain_pod(address))),
    };
    Node::start(kinglet_node::Options {
        data_dir: options.data.join("node"),
        node_name: NODE_NAME.to_owned(),
        context: context.named("kubelet"),
        images: options.images.clone(),
        drain,
        queue_proxies: apart.map(Apart::queue_proxies),
        queue_image_prefixes: vec![QUEUE_IMAGE.to_owned()],
        network: options.network.clone(),
        ca_pem: options.ca_pem.clone().unwrap_or_default(),
        helper: PathBuf::from("/proc/self/exe"),
        parked: kinglet_node::PARKED_DEFAULT,
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
    })
    .await
    .context("starting the node")
}

fn start_controllers(
    options: &MachineOptions,
    context: &Context,
    configs: &LiveConfigs,
    routes: kinglet_serving::Routes,
    reports: mpsc::Receiver<Report>,
) {
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
        root_ca_pem: options.ca_pem.clone(),
        parts: options.parts,
    };
    kinglet_workloads::run(context, workloads);
    kinglet_serving::start(
        context,
        kinglet_serving::ServingOptions {
            configs: configs.clone(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            gateway: kinglet_serving::ingress::GatewayNames::new(CLUSTER_DOMAIN),
            digests: Digests::shared(&options.images),
            browsers: options.browsers.clone(),
            reports,
            routes,
        },
    );
}

impl Machine {
    /// Lets requests in from pods, once every name that they may ask for is known, and waits until everything that is watched
    /// has been listed once.
    async fn open_inside(
        &self,
        others: Option<Outside>,
        with_https: bool,
        ports: InsidePorts,
        told: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        // Who connects from now on waits.
        let bridge = IpAddr::V4(self.node.gateway_ip());
        let inside = listeners::bind_inside(bridge, ports.http)?;
        let https_inside = match ports.https.filter(|_| with_https) {
            Some(port) => Some(listeners::bind_on_bridge(bridge, port)?),
            None => None,
        };
        told.await;
        self.gateway.set_backends_told(true);
        if let Some((apart, Outside { http, https })) = self.apart.as_ref().zip(others) {
            drop(inside);
            return apart
                .serve(http, https, ports, &self.node, &self.caches)
                .await;
        }
        for listener in inside {
            self.gateway
                .serve(listener, kinglet_dataplane::Listener::ClusterLocal);
        }
        if let Some(inside) = https_inside {
            self.gateway
                .serve_tls(inside, kinglet_dataplane::Listener::ClusterLocal)?;
        }
        self.caches.wait_synced().await;
        Ok(())
    }

    /// Addresses of activators; this process is the one there is, unless there are others.
    pub(crate) fn activators(&self) -> Vec<Ipv4Addr> {
        match &self.apart {
            Some(apart) => apart.activators(),
            None => vec![self.node.gateway_ip()],
        }
    }

    /// Takes no more requests and lets those under way end, for `max` at the longest.
    pub(crate) async fn finish_requests(&self, max: Duration) -> kinglet_dataplane::Cut {
        match &self.apart {
            Some(apart) => apart.finish_requests(max).await,
            None => self.gateway.shutdown(max).await,
        }
    }

    /// Stops deciding, then the containers, until `deadline` at the latest. Requests must have been drained before.
    pub(crate) async fn stop(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        self.deciding
            .shutdown(DECIDING_STOP_MAX.min(left / 4))
            .await;
        self.node.stop(deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    /// A cluster that answers nobody.
    #[tokio::test(start_paused = true)]
    async fn kinds_that_are_not_listed_are_named() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        let tasks = Tasks::new();
        let client = Client::new(silent, "default");
        let caches = Caches::new(client, tasks.child(), Clock::system());
        let _watched = (caches.cache::<Secret>(), caches.cache::<ConfigMap>());
        let bounds = Bounds {
            caches: &caches,
            deadline: Instant::now() + LISTINGS_MAX,
            stop: &CancellationToken::new(),
        };
        let listed = async {
            caches.wait_synced().await;
            Ok(())
        };
        let error = bounds.within(listed).await.expect_err("nothing is listed");
        let said = error.to_string();
        assert!(
            said.starts_with("the API server did not list ConfigMap, Secret within 60 s"),
            "{said}"
        );
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
