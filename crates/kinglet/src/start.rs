//! Everything that works on objects, over any API server: controllers, autoscaler, gateway, binder, node.
//!
//! Standalone and attached to a cluster this is the same; the client is the only difference.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_api::config::Configs;
use kinglet_image::Images;
use kinglet_node::{Node, NodeHandle};
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{Caches, Context, Gate};
use kinglet_serving::configs::LiveConfigs;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

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
/// What an API server may take to list everything that is watched: a large cluster takes seconds.
const LISTINGS_MAX: Duration = Duration::from_secs(60);
/// A slow API server must not keep the gateway closed for ever.
const FIRST_ROUTES_MAX: Duration = Duration::from_secs(15);
/// Controllers end at their next await; what they did not finish, the next life does.
const DECIDING_STOP_MAX: Duration = Duration::from_secs(2);
/// A start that fails half way takes pods of the last life off the host again.
const ABORT_MAX: Duration = Duration::from_secs(15);
const NODE_NAME: &str = "kinglet";
const CLUSTER_DOMAIN: &str = "cluster.local";
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
    /// The same for https.
    pub(crate) https: Option<TcpListener>,
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
    pub(crate) updates: mpsc::Sender<kinglet_decide::feed::Update>,
    pub(crate) reports: mpsc::Receiver<kinglet_decide::feed::Report>,
    /// The version of the routes in force.
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) gateways: kinglet_serving::ingress::Gateways,
}

/// Starts everything; the order is the flow of objects backwards, so that each part finds its reader ready.
/// A start that is told to stop meanwhile gives a machine whose gateway is closed.
pub(crate) async fn start(
    options: MachineOptions,
    stop: &CancellationToken,
) -> anyhow::Result<Machine> {
    let (clock, tasks) = (&options.clock, &options.tasks);
    let deciding = tasks.child();
    let caches = Caches::with_indexed_labels(
        options.client.clone(),
        deciding.clone(),
        clock.clone(),
        &INDEXED,
    );
    heap::follow(&caches, &deciding);
    let context = Context::new(&caches);
    let waterfalls = Waterfalls::follow(&caches, clock);
    let configs = LiveConfigs::follow(&context, Configs::for_domain(&options.domain));
    let https_port = match &options.https {
        Some(listener) => Some(listener.local_addr()?.port()),
        None => None,
    };
    let (gateway, mut channels) = start_data_plane(clock, tasks, https_port);
    let apart = match &options.apart {
        Some(shape) => Some(Apart::open(shape, &mut channels, tasks)?),
        None => None,
    };
    let node = start_node(&options, &context, &gateway, apart.as_ref()).await?;
    options.images.leave_by(node.egress());
    let applied = channels.applied.clone();
    let ports = InsidePorts {
        http: options.network.gateway_port,
        https: options.network.gateway_https,
    };
    let gate = open_after_routes(&deciding, applied.clone());
    let context = context.behind(gate);
    start_controllers(&options, &context, &configs, channels);
    let machine = Machine {
        caches,
        configs,
        gateway,
        node,
        images: options.images,
        waterfalls,
        apart,
        deciding,
    };
    let opened = tokio::select! {
        opened = machine.open_gateway(options.http, options.https, ports, applied) => opened,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(error) = opened {
        machine.stop(tokio::time::Instant::now() + ABORT_MAX).await;
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
    channels: Channels,
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
            updates: channels.updates,
            reports: channels.reports,
            gateways: channels.gateways,
            browsers: options.browsers.clone(),
        },
    );
}

impl Machine {
    /// Lets requests in, from outside and from pods, once the routes are known: who asks right after a restart must not
    /// be told that his host is unknown.
    async fn open_gateway(
        &self,
        http: TcpListener,
        https: Option<TcpListener>,
        ports: InsidePorts,
        mut applied: watch::Receiver<u64>,
    ) -> anyhow::Result<()> {
        listings(&self.caches).await?;
        let inside = listeners::bind_inside(self.node.gateway_ip().into(), ports.http)?;
        let known = applied.wait_for(|version| *version > 0);
        if tokio::time::timeout(FIRST_ROUTES_MAX, known).await.is_err() {
            tracing::warn!("the gateway begins before its routes are known");
        }
        if let Some(apart) = &self.apart {
            drop(inside);
            return apart
                .serve(http, https, ports, &self.node, &self.caches)
                .await;
        }
        for listener in inside {
            self.gateway
                .serve(listener, kinglet_dataplane::Listener::ClusterLocal);
        }
        if let Some(https) = https {
            if let Some(port) = ports.https {
                let inside = listeners::bind_on_bridge(self.node.gateway_ip().into(), port)?;
                self.gateway
                    .serve_tls(inside, kinglet_dataplane::Listener::ClusterLocal)?;
            }
            self.gateway
                .serve_tls(https, kinglet_dataplane::Listener::External)?;
        }
        self.gateway
            .serve(http, kinglet_dataplane::Listener::External);
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
    pub(crate) async fn stop(&self, deadline: tokio::time::Instant) {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.deciding
            .shutdown(DECIDING_STOP_MAX.min(left / 4))
            .await;
        self.node.stop(deadline).await;
    }
}

/// Waits until everything that is watched has been listed once.
async fn listings(caches: &Caches) -> anyhow::Result<()> {
    let listed = tokio::time::timeout(LISTINGS_MAX, caches.wait_synced()).await;
    listed.map_err(|_| {
        anyhow::anyhow!(
            "the API server did not list {} within {} s: look into the log for its answers, and whether the user of the kubeconfig may list and watch them",
            caches.incomplete().join(", "),
            LISTINGS_MAX.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};

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
        let error = listings(&caches).await.expect_err("nothing is listed");
        let said = error.to_string();
        assert!(
            said.starts_with("the API server did not list ConfigMap, Secret within 60 s"),
            "{said}"
        );
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
