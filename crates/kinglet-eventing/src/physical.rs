//! InMemoryChannel and DurableChannel: what events flow through (spec/eventing.md 6.5).
//!
//! Flow: the channel, a Subscription, its dead letter sink or the dispatcher's endpoints changed -> [`observe`] -> the data
//! plane takes the channel over -> [`decide`] -> its Service, status.
//! Always: a subscriber is marked ready when the data plane has it in force, never before. A channel that was deleted is
//! removed from the data plane, and its events with it, only after it was known here under that uid.
//! Differences from Knative: one dispatcher for all namespaces, whatever `eventing.knative.dev/scope` says.

mod decide;
mod kinds;
mod observe;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_api::config::eventing::SYSTEM_NAMESPACE;
use kinglet_api::messaging::{DurableChannel, InMemoryChannel, Subscription};
use kinglet_reconcile::{Context, Controller, Key, Next, ReconcileError, is_deleting, uid_of};
use parking_lot::Mutex;

use crate::EventingOptions;
use crate::addresses;
use crate::data_plane::{ChannelId, Update};
use crate::targets::Targets;
use kinds::PhysicalChannel;

const WORKERS: usize = 4;

/// Starts the controllers of both kinds.
pub(crate) fn start(context: &Context, options: &EventingOptions) {
    start_kind::<InMemoryChannel>(context, options);
    start_kind::<DurableChannel>(context, options);
}

/// The channels that the data plane knows, by namespace and name. Bounded by the channels that exist.
type Known = Arc<Mutex<HashMap<Key, ChannelId>>>;

fn start_kind<K: PhysicalChannel>(context: &Context, options: &EventingOptions) {
    let keys_if = |wanted: bool, all: &kinglet_reconcile::Cache<K>| {
        if wanted { all.keys() } else { Vec::new() }
    };
    let [by_map, by_slice, by_service] = [(); 3].map(|()| context.cache::<K>());
    let controller = Controller::<K>::new(K::CONTROLLER)
        .owns::<Service>()
        .watches::<ConfigMap, _>(move |map| keys_if(crate::configs::is_features(map), &by_map))
        .watches_heads::<EndpointSlice, _>(move |slice| {
            keys_if(addresses::is_of(slice, &[K::DISPATCHER]), &by_slice)
        })
        .watches_heads::<Service, _>(move |service| {
            let ours =
                &*service.key.namespace == SYSTEM_NAMESPACE && &*service.key.name == K::DISPATCHER;
            keys_if(ours, &by_service)
        })
        .reads::<Subscription>()
        .workers(WORKERS)
        .reports_errors();
    let targets = Targets::start(context, &options.kinds, controller.queue());
    let options = options.clone();
    let known = Known::default();
    controller.run(context, move |context, key| {
        reconcile::<K>(
            context,
            options.clone(),
            targets.clone(),
            known.clone(),
            key,
        )
    });
}

async fn reconcile<K: PhysicalChannel>(
    context: Context,
    options: EventingOptions,
    targets: Targets,
    known: Known,
    key: Key,
) -> Result<Next, ReconcileError> {
    let found = context.cache::<K>().find(&key);
    let found = found.filter(|channel| !is_deleting(&**channel));
    let before = known.lock().get(&key).cloned();
    if let Some(before) = before
        && found
            .as_ref()
            .is_none_or(|channel| uid_of(&**channel) != before.uid)
    {
        let gone = options.data_plane.apply(Update::Channel(before, None));
        gone.await.map_err(ReconcileError::Transient)?;
        known.lock().remove(&key);
    }
    let Some(channel) = found else {
        targets.forget(&key);
        return Ok(Next::Done);
    };
    let observed = observe::observe(&context, &options, &targets, channel).await;
    let id = observed.id();
    known.lock().insert(key, id.clone());
    let update = Update::Channel(id, Some(decide::in_force(&observed)));
    let applied = options.data_plane.apply(update).await;
    context
        .apply(decide::decide(&observed, applied.err()))
        .await
}
