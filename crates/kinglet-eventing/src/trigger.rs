//! Trigger: a Subscription on its Broker's channel, through the filter (spec/eventing.md 6.2).
//!
//! Flow: the Trigger, its Broker, its Subscription, its subscriber, its dead letter sink or the object it waits for changed ->
//! [`observe`] -> [`decide`] -> data plane, Subscription, status.
//! Always: Triggers of Brokers of another class are left alone. A Subscription whose channel stays keeps its uid, and with it
//! the events that wait for it (Knative deletes it and makes another one).

mod decide;
mod observe;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::eventing::Trigger;
use kinglet_api::messaging::Subscription;
use kinglet_reconcile::{Context, Controller, Key, Next, ReconcileError, is_deleting};

use crate::EventingOptions;
use crate::data_plane::Update;
use crate::targets::Targets;

const WORKERS: usize = 4;

/// Starts the controller.
pub(crate) fn start(context: &Context, options: &EventingOptions) {
    let all = context.cache::<Trigger>();
    let controller = Controller::<Trigger>::new("mt-trigger-controller")
        .owns::<Subscription>()
        .watches::<ConfigMap, _>(move |map| {
            if crate::configs::is_features(map) {
                all.keys()
            } else {
                Vec::new()
            }
        })
        .workers(WORKERS)
        .reports_errors();
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
    let found = context.cache::<Trigger>().find(&key);
    let Some(trigger) = found.filter(|trigger| !is_deleting(&**trigger)) else {
        targets.forget(&key);
        let gone = options.data_plane.apply(Update::Trigger(key, None)).await;
        return gone.map(|()| Next::Done).map_err(ReconcileError::Transient);
    };
    let observed = observe::observe(&context, &options, &targets, trigger).await;
    let Some(plan) = decide::decide(&observed) else {
        return Ok(Next::Done);
    };
    // The filter is in force before the channel hears of the subscriber that leads to it.
    let update = Update::Trigger(key, decide::in_force(&observed));
    let applied = options.data_plane.apply(update).await;
    applied.map_err(ReconcileError::Transient)?;
    context.apply(plan).await
}
