//! Everything the decision about a channel depends on.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kinglet_api::config::eventing::{EventingConfigs, SYSTEM_NAMESPACE};
use kinglet_api::destination::{Resolved, Resolver};
use kinglet_api::duck::SubscriberSpec;
use kinglet_api::messaging::Subscription;
use kinglet_api::{keys, names};
use kinglet_reconcile::{Context, Key, annotation, controller_of, key_of, uid_of};

use super::kinds::PhysicalChannel;
use crate::EventingOptions;
use crate::addresses;
use crate::data_plane::ChannelId;
use crate::targets::Targets;

/// Facts about one channel.
#[derive(Clone, Debug)]
pub(super) struct PhysicalObserved<K> {
    pub(super) channel: Arc<K>,
    pub(super) key: Key,
    /// Uids of the subscribers that want their events in order.
    pub(super) ordered: BTreeSet<String>,
    /// The Service of the channel's name.
    pub(super) own_service: Option<Arc<Service>>,
    /// The dispatcher's Service, and whether it has an endpoint.
    pub(super) service: bool,
    pub(super) endpoint: bool,
    pub(super) dead_letter: Option<Result<Resolved, String>>,
    /// A Broker owns it, which sees to EventTypes itself.
    pub(super) of_broker: bool,
    pub(super) configs: Arc<EventingConfigs>,
    pub(super) cluster_domain: Arc<str>,
    pub(super) now: Timestamp,
}

impl<K: PhysicalChannel> PhysicalObserved<K> {
    /// Which channel it is for the data plane.
    pub(super) fn id(&self) -> ChannelId {
        ChannelId {
            kind: K::kind(&()).into_owned(),
            key: self.key.clone(),
            uid: uid_of(&*self.channel).to_owned(),
        }
    }
}

pub(super) async fn observe<K: PhysicalChannel>(
    context: &Context,
    options: &EventingOptions,
    targets: &Targets,
    channel: Arc<K>,
) -> PhysicalObserved<K> {
    let key = key_of(&*channel);
    let mut look = targets.look(&key);
    let resolver = Resolver {
        cluster_domain: &options.cluster_domain,
        mapping: None,
    };
    let delivery = channel.channelable().delivery.as_ref();
    let dead_letter = match delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref()) {
        Some(sink) => Some(look.resolve(resolver, sink, &key.namespace).await),
        None => None,
    };
    look.finish();
    let services = context.cache::<Service>();
    let subscribers = &channel.channelable().subscribers;
    PhysicalObserved {
        ordered: subscribers
            .iter()
            .filter(|one| is_ordered(context, &key, one))
            .map(|one| one.uid.clone())
            .collect(),
        own_service: services.get(&key.namespace, &names::channel_service(&key.name)),
        service: services.get(SYSTEM_NAMESPACE, K::DISPATCHER).is_some(),
        endpoint: addresses::has_endpoint(context, K::DISPATCHER),
        dead_letter,
        of_broker: controller_of(&*channel).is_some_and(|owner| owner.kind == "Broker"),
        configs: options.configs.get(),
        cluster_domain: Arc::clone(&options.cluster_domain),
        now: context.now(),
        key,
        channel,
    }
}

/// Whether the Subscription of a subscriber asks for order; by its name, in the channel's own namespace.
fn is_ordered(context: &Context, channel: &Key, subscriber: &SubscriberSpec) -> bool {
    let cache = context.cache::<Subscription>();
    let name = subscriber.name.as_deref().unwrap_or_default();
    let found = cache.get(&channel.namespace, name);
    let asks = |subscription: &Subscription| {
        [keys::DELIVERY_ORDER, keys::KAFKA_DELIVERY_ORDER]
            .into_iter()
            .find_map(|key| annotation(subscription, key))
            .is_some_and(|order| order == "ordered")
    };
    found.is_some_and(|found| uid_of(&*found) == subscriber.uid && asks(&found))
}
