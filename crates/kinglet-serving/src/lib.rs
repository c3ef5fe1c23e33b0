//! Knative Serving's reconcilers: from a Service to pods and routes.
//!
//! Flow: [`service`] -> [`configuration`] -> [`revision`] (Deployment, PodAutoscaler, Images) and [`route`] (Ingress,
//! placeholder Services) -> [`ingress`] -> the gateway's route table; the gateway's counts -> [`autoscale`] -> replica
//! counts -> ready pods -> the gateway. Beside the chain: [`labeler`] notes which Routes lead where, [`gc`] collects
//! Revisions that nobody needs, [`configs`] follows the operator's ConfigMaps.
//! Always: a reconciler is observe (caches) -> decide (pure, no clock but its argument) -> one plan of writes; every
//! write goes through the context; the deepest cause known below is what the objects above say.

use std::sync::Arc;

use kinglet_api::keys;
use kinglet_decide::feed::{Report, Update};
use kinglet_reconcile::Context;
use tokio::sync::{mpsc, watch};

pub mod configs;
mod generation_age;
mod metadata;
mod outcome;
mod unadmitted;

pub mod certificate;
pub mod configuration;
pub mod gc;
pub mod ingress;
pub mod labeler;
pub mod revision;
pub mod route;
pub mod service;

pub mod autoscale;

pub use revision::digests::ResolveDigest;

/// Labels by which these controllers look objects up; the process's caches should index them
/// (`Caches::with_indexed_labels`), or every look becomes a search.
pub const INDEXED_LABELS: [&str; 3] = [
    keys::REVISION,
    keys::CONFIGURATION,
    keys::SERVERLESS_SERVICE,
];

/// What Knative Serving is started with.
pub struct ServingOptions {
    /// The configuration of the moment; followed since before this starts, so that a controller woken by a ConfigMap
    /// finds it read.
    pub configs: configs::LiveConfigs,
    /// Domain of the cluster's own names, `cluster.local` as a rule.
    pub cluster_domain: String,
    /// Host names under which the gateway is reached inside the cluster.
    pub gateway: ingress::GatewayNames,
    /// Knows what image tags mean.
    pub digests: Arc<dyn ResolveDigest>,
    /// From the gateway: counts, and requests that find no pod.
    pub reports: mpsc::Receiver<Report>,
    /// Signs certificates for hosts, where no cert-manager does.
    pub browsers: Option<kinglet_process::pki::Browsers>,
    /// What requests need, begun with [`start_routes`].
    pub routes: Routes,
}

/// What requests need of Serving: routes, and where they lead.
pub struct Routes {
    ingress: ingress::Routes,
    backends: autoscale::backends::Backends,
}

impl Routes {
    /// Waits until the gateway was told about every Revision and Service there was at the start.
    pub fn backends_told(&self) -> impl Future<Output = ()> + Send + 'static {
        self.backends.told()
    }
}

/// Starts to tell the gateway what there is, from the caches alone: after a restart requests find their routes before any
/// controller works. `updates` leads to the gateway; `gateways` must serve an Ingress before it is Ready. Pods get requests
/// from the moment on when `pods_are_current`: before it one may look ready that ended with the process before this one.
pub fn start_routes(
    context: &Context,
    updates: mpsc::Sender<Update>,
    gateways: ingress::Gateways,
    pods_are_current: watch::Receiver<bool>,
) -> Routes {
    let by_public_service = gateways.are_elsewhere();
    Routes {
        ingress: ingress::start_routes(context, updates.clone(), gateways),
        backends: autoscale::backends::start(context, updates, by_public_service, pods_are_current),
    }
}

/// Starts all of Knative Serving as tasks of the context.
pub fn start(context: &Context, options: ServingOptions) {
    let ServingOptions {
        configs,
        cluster_domain,
        gateway,
        digests,
        reports,
        browsers,
        routes,
    } = options;
    ingress::start(context, gateway, routes.ingress);
    autoscale::start(context, configs.clone(), reports, routes.backends);
    revision::start(context, configs.clone(), digests);
    if let Some(browsers) = browsers {
        certificate::start(context, configs.clone(), browsers);
    }
    route::start(context, configs.clone(), cluster_domain.into());
    configuration::start(context, configs.clone());
    labeler::start(context);
    gc::start(context, configs.clone());
    service::start(context, configs);
}

/// A moment as Knative's annotations hold it: RFC 3339, UTC, whole seconds.
fn stamp(now: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}
