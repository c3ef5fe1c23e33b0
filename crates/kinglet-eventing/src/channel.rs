//! Channel: a channel of whatever kind its template names, under the Channel's own name (spec/eventing.md 6.3).
//!
//! Flow: the Channel or the channel behind it changed -> [`observe`] -> [`decide`] -> channel behind it, status.
//! Always: the channel behind is made once and never changed from here.

mod decide;
mod observe;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::messaging::Channel;
use kinglet_reconcile::{Context, Controller, Key, Next, ReconcileError, is_deleting};

use crate::EventingOptions;
use crate::targets::Targets;

const WORKERS: usize = 4;

/// Starts the controller.
pub(crate) fn start(context: &Context, options: &EventingOptions) {
    let all = context.cache::<Channel>();
    let controller = Controller::<Channel>::new("channel-controller")
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
    let found = context.cache::<Channel>().find(&key);
    let Some(channel) = found.filter(|channel| !is_deleting(&**channel)) else {
        targets.forget(&key);
        return Ok(Next::Done);
    };
    let observed = observe::observe(&context, &options, &targets, channel).await;
    context.apply(decide::decide(&observed)).await
}
