//! Autoscaling: from the gateway's counts to replica counts, and from ready pods back to the gateway.
//!
//! Flow: [`Report`]s -> [`deciders`] (windows, desired scales) -> [`kpa`] (limits, Deployment, ServerlessService,
//! Metric, conditions) -> pods -> [`backends`] -> the gateway. [`sks`] keeps the two Kubernetes Services of a
//! Revision. The arithmetic is `kinglet_decide::scale`.
//! Always: a waiting request is decided when it is reported, not at a tick; ready pods reach the gateway from
//! the cache's event, not through a queue; zero only after the handshake.

use kinglet_api::keys;
use kinglet_decide::feed::Report;
use kinglet_reconcile::Context;
use tokio::sync::mpsc;

use crate::configs::LiveConfigs;

pub mod backends;
pub mod decider_set;
pub mod deciders;
pub mod kpa;
pub mod metric;
pub mod pods;
pub mod settings;
pub mod sks;

/// Whether an autoscaling class is served here. An empty or missing one is: it is the default that the Revision would
/// have got.
pub(crate) fn serves_class(class: Option<&str>) -> bool {
    matches!(class, None | Some("" | keys::AUTOSCALING_CLASS_KPA))
}

/// Starts the PodAutoscaler, Metric and ServerlessService reconcilers and the decider loop as tasks of the context.
pub(crate) fn start(
    context: &Context,
    configs: LiveConfigs,
    reports: mpsc::Receiver<Report>,
    backends: backends::Backends,
) {
    let deciders = deciders::Deciders::new();
    let queue = kpa::start(context, configs, deciders.clone());
    metric::start(context);
    sks::start(context);
    let stop = context.tasks().token();
    context.tasks().component("autoscaler", async move {
        let wake = |key| {
            backends.tell_asked(&key);
            queue.add(key);
        };
        deciders.run(reports, wake, stop).await;
    });
}
