//! The Broker's ingress (spec/eventing.md 7.3): checks, TTL, arrival time, and on to the channel of the Triggers.

use http::{HeaderMap, StatusCode};
use kinglet_events::headers::{self, Purpose};
use kinglet_events::{Event, binding, delivery};

use crate::access::{self, Sender};
use crate::answer::{Answer, refuse};
use crate::exchange::{self, Call};
use crate::feed::{Addressable, Key};
use crate::plane::{BrokerEntry, Plane};
use crate::receiver;

/// The account that the ingress sends to channels as.
const IDENTITY: &str = "mt-broker-ingress-oidc";

/// Takes an event for a Broker. `broker` is none for one that is not known.
pub(crate) async fn accept(
    plane: &Plane,
    key: &Key,
    broker: Option<&BrokerEntry>,
    mut event: Event,
    request: &HeaderMap,
    sender: Sender<'_>,
) -> Answer {
    let Some(broker) = broker else {
        return refuse(
            StatusCode::NOT_FOUND,
            format_args!(
                "there is no Broker {} in namespace {}",
                key.name, key.namespace
            ),
        );
    };
    let route = &broker.route;
    // A filter sees what a stage after this one would read.
    event.stringify_extensions();
    let allowed = access::check(
        &*plane.verify,
        &route.access,
        &key.namespace,
        sender,
        &event,
    );
    if let Err(refused) = allowed.await {
        return refused;
    }
    let now = plane.clock.now();
    if let Err(error) = delivery::arrive(&mut event, plane.ttl_default, now) {
        return refuse(StatusCode::BAD_REQUEST, error);
    }
    if route.auto_event_types {
        plane
            .reports
            .seen(Addressable::Broker, &plane.broker_kind, key, &event);
    }
    forward(plane, key, broker, event, request).await
}

async fn forward(
    plane: &Plane,
    key: &Key,
    broker: &BrokerEntry,
    event: Event,
    request: &HeaderMap,
) -> Answer {
    let route = &broker.route;
    let identity = Key::new(plane.system_namespace.clone(), IDENTITY);
    let channel = route.channel.as_ref().filter(|_| plane.shortcuts);
    if let Some(channel) = channel.and_then(|id| plane.channel(id)) {
        let passed_on = headers::forwarded(request);
        let sender = Sender::Stage(Some(&identity));
        return receiver::accept(plane, &channel, event, passed_on, sender).await;
    }
    let Some(address) = &route.address else {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!("Broker {key} has no channel yet (annotation knative.dev/channelAddress)"),
        );
    };
    let call = Call {
        destination: address,
        event: &event,
        format: binding::Format::Binary,
        headers: headers::delivery(request, &key.namespace, Purpose::Subscriber),
        identity: Some(&identity),
        room: &broker.room,
    };
    match exchange::post(&plane.outgoing, call).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let mut answer = Answer::new(body);
            *answer.status_mut() = parts.status;
            for name in [http::header::CONTENT_TYPE, http::header::RETRY_AFTER] {
                if let Some(value) = parts.headers.get(&name) {
                    answer.headers_mut().insert(name, value.clone());
                }
            }
            answer
        }
        Err(no_answer) => refuse(StatusCode::INTERNAL_SERVER_ERROR, no_answer.0),
    }
}
