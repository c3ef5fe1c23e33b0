//! Subscription: an entry with resolved addresses among the subscribers of its channel (spec/eventing.md 6.4).
//!
//! Flow: the Subscription, its channel or something it sends to changed -> [`observe`] -> [`decide`] -> the channel's
//! `spec.subscribers`, status; the channel's status brings it back here -> Ready.
//! Always: the finalizer stays until the channel has let go of the entry.

mod decide;
mod observe;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::messaging::Subscription;
use kinglet_reconcile::{Context, Controller, Key, Next, ReconcileError};

use crate::EventingOptions;
use crate::targets::Targets;

/// Most of them write to the same channel, so more would only get in each other's way.
const WORKERS: usize = 2;

/// Starts the controller.
pub(crate) fn start(context: &Context, options: &EventingOptions) {
    let all = context.cache::<Subscription>();
    let controller = Controller::<Subscription>::new("subscription-controller")
        .watches::<ConfigMap, _>(move |map| {
            if crate::configs::is_features(map) {
                all.keys()
            } else {
                Vec::new()
            }
        })
        .workers(WORKERS);
    let targets = Targets::start(context, &options.kinds, controller.queue());
    let options = options.clone();
    controller.run(context, move |context, key| {
        reconcile(context, options.clone(), targets.clone(), key)
    });
}

async fn reconcile(
    context: Context,
    options: EventingOptions,
    targets: Targets,
    key: Key,
) -> Result<Next, ReconcileError> {
    let Some(subscription) = context.cache::<Subscription>().find(&key) else {
        targets.forget(&key);
        return Ok(Next::Done);
    };
    let observed = observe::observe(&context, &options, &targets, subscription).await;
    context.apply(decide::decide(&observed)).await
}
