//! Broker of class `MTChannelBasedBroker`: a channel for its Triggers, and an address (spec/eventing.md 6.1).
//!
//! Flow: the Broker, its channel, its ConfigMap, its dead letter sink or the endpoints of the data plane changed ->
//! [`observe`] -> [`decide`] -> data plane, channel, status.
//! Always: Brokers of other classes are left alone.

mod decide;
mod observe;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_api::eventing::Broker;
use kinglet_api::keys;
use kinglet_reconcile::{
    Context, Controller, Key, Next, ReconcileError, key_of, name_of, namespace_of,
};

use crate::EventingOptions;
use crate::addresses;
use crate::data_plane::Update;
use crate::targets::Targets;

const WORKERS: usize = 4;

/// Starts the controller.
pub(crate) fn start(context: &Context, options: &EventingOptions) {
    let (by_map, by_slice) = (context.cache::<Broker>(), context.cache::<Broker>());
    let controller = Controller::<Broker>::new("mt-broker-controller")
        .watches::<ConfigMap, _>(move |map| {
            let all = crate::configs::is_features(map);
            let concerned = |broker: &Broker| all || is_configured_by(broker, map);
            let brokers = by_map.all().into_iter();
            let keys: Vec<Key> = brokers
                .filter(|broker| concerned(broker))
                .map(|broker| key_of(&*broker))
                .collect();
            keys
        })
        .watches_heads::<EndpointSlice, _>(move |slice| {
            let ours = addresses::is_of(slice, &[addresses::INGRESS, addresses::FILTER]);
            if ours { by_slice.keys() } else { Vec::new() }
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
    let found = context.cache::<Broker>().find(&key);
    let Some(broker) =
        found.filter(|broker| is_ours(broker) && broker.metadata.deletion_timestamp.is_none())
    else {
        targets.forget(&key);
        // A Broker that is not there takes no events; that nobody is told twice costs nothing.
        let gone = options.data_plane.apply(Update::Broker(key, None)).await;
        return gone.map(|()| Next::Done).map_err(ReconcileError::Transient);
    };
    let observed = observe::observe(&context, &options, &targets, broker).await;
    let update = Update::Broker(key, Some(decide::in_force(&observed)));
    let applied = options.data_plane.apply(update).await;
    context
        .apply(decide::decide(&observed, applied.err()))
        .await
}

/// Whether a Broker is of the class that this controller is for.
pub(crate) fn is_ours(broker: &Broker) -> bool {
    broker.annotation(keys::BROKER_CLASS) == Some(keys::BROKER_CLASS_MT)
}

fn is_configured_by(broker: &Broker, map: &ConfigMap) -> bool {
    broker.spec.config.as_ref().is_some_and(|config| {
        config.kind == "ConfigMap"
            && config.name == name_of(map)
            && config.namespace == namespace_of(map)
    })
}
