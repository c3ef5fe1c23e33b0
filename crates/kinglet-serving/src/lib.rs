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
use tokio::sync::mpsc;

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
    /// To the gateway: routes, and backends by Revision and Service.
    pub updates: mpsc::Sender<Update>,
    /// From the gateway: counts, and requests that find no pod.
    pub reports: mpsc::Receiver<Report>,
    /// The gateways that must serve an Ingress before it is Ready.
    pub gateways: ingress::Gateways,
    /// Signs certificates for hosts, where no cert-manager does.
    pub browsers: Option<kinglet_process::pki::Browsers>,
}

/// Starts all of Knative Serving as tasks of the context.
pub fn start(context: &Context, options: ServingOptions) {
    let ServingOptions {
        configs,
        cluster_domain,
        gateway,
        digests,
        updates,
        reports,
        gateways,
        browsers,
    } = options;
    autoscale::backends::start(context, updates.clone(), gateways.are_elsewhere());
    ingress::start(context, gateway, updates, gateways);
    autoscale::start(context, configs.clone(), reports);
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
