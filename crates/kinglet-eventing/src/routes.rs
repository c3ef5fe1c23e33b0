//! The data plane of our own: what the reconcilers know, as the routes that `kinglet_broker` takes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use kinglet_api::destination::Resolved;
use kinglet_api::duck::{DeliverySpec, SubscriberSpec};
use kinglet_api::messaging::Retention;
use kinglet_broker::engine;
use kinglet_broker::feed::{
    Access, BrokerRoute, ChannelRoute, Delivery, Destination, Subscriber, TriggerRoute, Update,
};
use kinglet_events::{Filter, IsoDuration};
use kinglet_quantity::Quantity;
use kinglet_reconcile::uid_of;

use crate::addresses;
use crate::data_plane::{
    self, BrokerInForce, ChannelId, ChannelInForce, DataPlane, TriggerInForce,
};

impl DataPlane for kinglet_broker::Handle {
    fn apply(&self, update: data_plane::Update) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let update = translated(update)?;
            let applied = Self::apply(self, update).await;
            applied.map_err(|error| error.to_string())
        })
    }
}

fn translated(update: data_plane::Update) -> Result<Update, String> {
    Ok(match update {
        data_plane::Update::Broker(key, route) => {
            Update::Broker(key, route.map(|route| broker(&route)))
        }
        data_plane::Update::Trigger(key, route) => {
            Update::Trigger(key, route.map(|route| trigger(&route)).transpose()?)
        }
        data_plane::Update::Channel(id, route) => Update::Channel(
            channel_id(&id),
            route.map(|route| channel(&route)).transpose()?,
        ),
    })
}

fn channel_id(id: &ChannelId) -> engine::ChannelId {
    engine::ChannelId {
        kind: id.kind.as_str().into(),
        key: id.key.clone(),
        uid: id.uid.as_str().into(),
    }
}

fn broker(route: &BrokerInForce) -> BrokerRoute {
    let channel = route.channel.as_ref();
    BrokerRoute {
        uid: uid_of(&*route.broker).into(),
        channel: channel.map(|(id, _)| channel_id(id)),
        address: channel.map(|(_, address)| Destination::plain(address.as_str())),
        access: Access::default(),
        auto_event_types: route.auto_event_types,
    }
}

fn trigger(route: &TriggerInForce) -> Result<TriggerRoute, String> {
    let spec = &route.trigger.spec;
    let (filter, skipped) = Filter::compile(spec.filter.as_ref(), &spec.filters, None);
    for skipped in skipped {
        tracing::warn!(namespace = route.trigger.namespace(), trigger = route.trigger.name(), %skipped, "part of a filter does nothing");
    }
    Ok(TriggerRoute {
        uid: uid_of(&*route.trigger).into(),
        broker: route.broker.clone(),
        filter: Arc::new(filter),
        subscriber: route.subscriber.as_ref().map(destination),
        delivery: delivery(route.delivery.as_ref(), route.dead_letter.as_ref())?,
        reply: None,
        identity: None,
        authenticates: false,
        auto_event_types: route.auto_event_types,
    })
}

fn channel(route: &ChannelInForce) -> Result<ChannelRoute, String> {
    let subscribers = route.spec.subscribers.iter();
    let subscribers = subscribers.map(|one| subscriber(one, route.ordered.contains(&one.uid)));
    Ok(ChannelRoute {
        subscribers: subscribers.collect::<Result<_, _>>()?,
        asynchronous: route.asynchronous,
        access: Access::default(),
        retention: retention(&route.retention)?,
        auto_event_types: route.auto_event_types,
    })
}

fn subscriber(one: &SubscriberSpec, ordered: bool) -> Result<Subscriber, String> {
    let to = |url: &Option<String>, certs: &Option<String>, audience: &Option<String>| {
        let url = url.as_deref().filter(|url| !url.is_empty())?;
        Some(Destination {
            url: url.into(),
            ca_certs: certs.as_deref().map(Into::into),
            audience: audience.as_deref().map(Into::into),
        })
    };
    let sink = one
        .delivery
        .as_ref()
        .and_then(|delivery| delivery.dead_letter_sink.as_ref());
    let sink = sink.and_then(|sink| {
        Some(Resolved {
            url: sink.uri.clone()?,
            ca_certs: sink.ca_certs.clone(),
            audience: sink.audience.clone(),
        })
    });
    let name = one.name.as_deref().unwrap_or_default();
    let delivery = delivery(one.delivery.as_ref(), sink.as_ref());
    Ok(Subscriber {
        uid: one.uid.as_str().into(),
        generation: one.generation,
        name: name.into(),
        subscriber: to(
            &one.subscriber_uri,
            &one.subscriber_ca_certs,
            &one.subscriber_audience,
        ),
        reply: to(&one.reply_uri, &one.reply_ca_certs, &one.reply_audience),
        delivery: delivery.map_err(|why| format!("subscriber {name:?}: {why}"))?,
        ordered,
        identity: None,
    })
}

fn destination(resolved: &Resolved) -> Destination {
    Destination {
        url: resolved.url.as_str().into(),
        ca_certs: resolved.ca_certs.as_deref().map(Into::into),
        audience: resolved.audience.as_deref().map(Into::into),
    }
}

fn delivery(spec: Option<&DeliverySpec>, sink: Option<&Resolved>) -> Result<Delivery, String> {
    let spec = spec.cloned().unwrap_or_default();
    let written = kinglet_events::delivery::DeliverySpec {
        retry: spec.retry,
        timeout: spec.timeout,
        backoff_policy: spec.backoff_policy,
        backoff_delay: spec.backoff_delay,
        retry_after_max: spec.retry_after_max,
        format: spec.format,
    };
    Ok(Delivery {
        dead_letter: sink.map(destination),
        policy: written.read().map_err(|error| error.to_string())?,
    })
}

/// What the channel says, and the engine's defaults for what it does not; nothing if it says nothing.
fn retention(said: &Retention) -> Result<Option<engine::Retention>, String> {
    let Retention { age, size, .. } = said;
    if age.is_none() && size.is_none() {
        return Ok(None);
    }
    let mut retention = engine::Retention::default();
    if let Some(age) = age {
        let read = IsoDuration::parse(age);
        retention.age_max = read
            .map_err(|error| format!("spec.retention.age {age:?}: {error}"))?
            .to_wait();
    }
    if let Some(size) = size {
        let read = Quantity::parse(size);
        let units = read
            .map_err(|error| format!("spec.retention.size {size:?}: {error}"))?
            .units();
        retention.bytes_max = u64::try_from(units).unwrap_or_default();
    }
    Ok(Some(retention))
}

/// Services of the data plane, and what is behind each.
pub fn services(handle: &kinglet_broker::Handle) -> [LocalService; 4] {
    let channels = |kind: &str| handle.channels(kind, false);
    [
        (addresses::INGRESS, handle.ingress(false)),
        (addresses::FILTER, handle.filter(false)),
        (addresses::IN_MEMORY_DISPATCHER, channels("InMemoryChannel")),
        (addresses::DURABLE_DISPATCHER, channels("DurableChannel")),
    ]
}

/// A Service's name, in the namespace of Eventing, and what answers for it.
pub type LocalService = (&'static str, Arc<dyn kinglet_decide::call::HttpService>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::read;

    #[test]
    fn subscribers_are_handed_on_whole() {
        let spec: SubscriberSpec = read(json!({
            "uid": "s-1", "generation": 3, "name": "plain", "subscriberUri": "http://to", "replyUri": "http://reply", "replyCACerts": "pem",
            "delivery": {"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.1S", "timeout": "PT1S", "deadLetterSink": {"uri": "http://dead"}},
        }));
        let one = subscriber(&spec, true).unwrap();
        assert_eq!((&*one.uid, one.generation, &*one.name), ("s-1", 3, "plain"));
        assert_eq!(one.subscriber, Some(Destination::plain("http://to")));
        assert_eq!(one.reply.unwrap().ca_certs.as_deref(), Some("pem"));
        assert_eq!(
            one.delivery.dead_letter,
            Some(Destination::plain("http://dead"))
        );
        assert_eq!((one.delivery.policy.retries, one.ordered), (2, true));
        let broken: SubscriberSpec = read(json!({"name": "x", "delivery": {"timeout": "1s"}}));
        let error = subscriber(&broken, false).unwrap_err();
        assert!(
            error.starts_with("subscriber \"x\": delivery.timeout \"1s\""),
            "{error}"
        );
    }

    #[test]
    fn retention_is_what_the_channel_says() {
        assert_eq!(retention(&Retention::default()), Ok(None));
        let said = read(json!({"age": "PT1H", "size": "1Mi"}));
        let want = engine::Retention {
            bytes_max: 1 << 20,
            age_max: std::time::Duration::from_secs(3600),
        };
        assert_eq!(retention(&said), Ok(Some(want)));
    }
}
