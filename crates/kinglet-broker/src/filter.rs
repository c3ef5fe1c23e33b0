//! The filter of a Trigger, and the call of its subscriber (spec/eventing.md 7.4).

use http::{HeaderMap, HeaderValue, StatusCode};
use kinglet_events::Event;
use kinglet_events::binding::{self, Format, Reply};
use kinglet_events::delivery::{self, FilterAnswer, TTL};
use kinglet_events::event::Value;
use kinglet_events::headers::{self, Purpose};

use crate::access::{self, Sender};
use crate::answer::{Answer, refuse, status};
use crate::body;
use crate::exchange::{self, Call};
use crate::feed::{Addressable, Destination};
use crate::plane::{Plane, TriggerEntry};
use crate::short::{Part, TriggerPath};

/// The audience of the filter's tokens.
pub const AUDIENCE: &str = "mt-broker-filter";

/// Marks the answer to an event that the filter holds back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filtered;

/// Takes an event for a Trigger.
pub(crate) async fn accept(
    plane: &Plane,
    path: &TriggerPath,
    event: Event,
    passed_on: &HeaderMap,
    sender: Sender<'_>,
) -> Answer {
    let key = &path.trigger;
    let Some(trigger) = plane.trigger(key) else {
        return refuse(
            StatusCode::NOT_FOUND,
            format_args!(
                "there is no Trigger {} in namespace {}",
                key.name, key.namespace
            ),
        );
    };
    if trigger.route.uid != path.uid {
        return refuse(
            StatusCode::BAD_REQUEST,
            format_args!(
                "the uid of Trigger {key} is another one: the address is of one that was deleted"
            ),
        );
    }
    if trigger.route.authenticates
        && let Err(refused) = check_sender(plane, &trigger, sender).await
    {
        return refused;
    }
    match path.part {
        Part::Subscriber => deliver(plane, &trigger, event, passed_on).await,
        Part::Reply => {
            proxy(
                plane,
                &trigger,
                trigger.route.reply.as_ref(),
                &event,
                passed_on,
            )
            .await
        }
        Part::DeadLetter => {
            let sink = trigger.route.delivery.dead_letter.as_ref();
            proxy(plane, &trigger, sink, &event, passed_on).await
        }
    }
}

/// Only the channel may send, with the identity of the Trigger's Subscription.
async fn check_sender(
    plane: &Plane,
    trigger: &TriggerEntry,
    sender: Sender<'_>,
) -> Result<(), Answer> {
    let Some(identity) = &trigger.route.identity else {
        return Err(refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!(
                "Trigger {} has no identity (status.auth.serviceAccountName)",
                trigger.key
            ),
        ));
    };
    let subject = access::authenticate(&*plane.verify, AUDIENCE, sender).await?;
    if *subject == *access::subject_of(identity) {
        return Ok(());
    }
    Err(refuse(
        StatusCode::FORBIDDEN,
        format_args!(
            "{subject} may not send to Trigger {}: its Subscription may",
            trigger.key
        ),
    ))
}

/// Asks the filter, then the subscriber.
async fn deliver(
    plane: &Plane,
    trigger: &TriggerEntry,
    mut event: Event,
    passed_on: &HeaderMap,
) -> Answer {
    let route = &trigger.route;
    let Some(ttl) = delivery::remaining_ttl(&event) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the event has no knativebrokerttl: send it to the Broker and not to its filter or channel",
        );
    };
    event.remove_extension(TTL.as_str());
    let Some(subscriber) = &route.subscriber else {
        return refuse(
            StatusCode::NOT_FOUND,
            format_args!(
                "Trigger {} has no subscriber yet (status.subscriberUri)",
                trigger.key
            ),
        );
    };
    if !route.filter.matches(&event) {
        trigger.complain(plane, &event);
        let mut answer = status(StatusCode::OK);
        answer.extensions_mut().insert(Filtered);
        return answer;
    }
    let called = call(
        plane,
        trigger,
        subscriber,
        &event,
        passed_on,
        Purpose::Subscriber,
    )
    .await;
    let answer = match called {
        Ok(answer) if answer.status().is_success() => answer,
        failed => return failure(&subscriber.url, failed),
    };
    match binding::decode_reply(answer.headers(), answer.body().clone()) {
        Reply::Empty => status(answer.status()),
        Reply::Event(reply) => {
            if route.auto_event_types {
                let kind = &plane.trigger_kind;
                plane
                    .reports
                    .seen(Addressable::Trigger, kind, &trigger.key, &reply);
            }
            pass_on(&answer, *reply, ttl)
        }
        Reply::Other => no_event(&subscriber.url, "it is not a CloudEvent"),
        Reply::Malformed(error) => no_event(&subscriber.url, error),
    }
}

async fn call(
    plane: &Plane,
    trigger: &TriggerEntry,
    destination: &Destination,
    event: &Event,
    passed_on: &HeaderMap,
    purpose: Purpose,
) -> Result<Answer, exchange::NoAnswer> {
    let format = match purpose {
        Purpose::Subscriber => trigger.route.delivery.policy.format,
        Purpose::Sink => Format::Binary,
    };
    let call = Call {
        destination,
        event,
        format,
        headers: headers::delivery(passed_on, &trigger.key.namespace, purpose),
        identity: trigger.route.identity.as_ref(),
        room: &trigger.room,
    };
    exchange::post(&plane.outgoing, call).await
}

/// So much of a subscriber's answer is told to the channel: in base64 and JSON it is still an answer that is read whole.
const TOLD_BYTES_MAX: usize = body::SMALL_BYTES_MAX / 2;

/// The subscriber's status, and in the body who it is, so that the channel can name it in a dead letter.
fn failure(subscriber: &str, failed: Result<Answer, exchange::NoAnswer>) -> Answer {
    let (code, passed_on, body) = match failed {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let code = binding::answer_status(parts.status.as_u16());
            (code, headers::forwarded(&parts.headers), body)
        }
        Err(no_answer) => (500, HeaderMap::new(), no_answer.0.into()),
    };
    let told = &body[..body.len().min(TOLD_BYTES_MAX)];
    let mut answer = Answer::new(FilterAnswer::new(subscriber, told).to_json().into());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *answer.headers_mut() = passed_on;
    answer
}

/// A reply that is none fails the delivery.
fn no_event(subscriber: &str, why: impl std::fmt::Display) -> Answer {
    let words = format!("the reply of the subscriber is not taken: {why}");
    let mut answer = Answer::new(
        FilterAnswer::new(subscriber, words.as_bytes())
            .to_json()
            .into(),
    );
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

/// The reply on its way to the channel, with as many passes left as the event had.
fn pass_on(answer: &Answer, mut reply: Event, ttl: i32) -> Answer {
    if let Err(error) = reply.set_extension(TTL.clone(), Value::Integer(ttl)) {
        return refuse(StatusCode::BAD_GATEWAY, format_args!("the reply: {error}"));
    }
    let mut headers = headers::forwarded(answer.headers());
    let body = binding::encode(&reply, Format::Binary, &mut headers);
    let mut passed = Answer::new(body);
    *passed.status_mut() = answer.status();
    *passed.headers_mut() = headers;
    passed
}

/// `…/reply` and `…/dls`: the channel has no identity of its own to send there.
async fn proxy(
    plane: &Plane,
    trigger: &TriggerEntry,
    destination: Option<&Destination>,
    event: &Event,
    passed_on: &HeaderMap,
) -> Answer {
    let Some(destination) = destination else {
        return refuse(
            StatusCode::NOT_FOUND,
            format_args!("Trigger {} has no such address", trigger.key),
        );
    };
    match call(plane, trigger, destination, event, passed_on, Purpose::Sink).await {
        Ok(answer) => {
            let mut passed = Answer::new(answer.body().clone());
            *passed.status_mut() = answer.status();
            *passed.headers_mut() = headers::forwarded(answer.headers());
            if let Some(kind) = answer.headers().get(http::header::CONTENT_TYPE) {
                let kind: HeaderValue = kind.clone();
                passed
                    .headers_mut()
                    .insert(http::header::CONTENT_TYPE, kind);
            }
            passed
        }
        failed => failure(&destination.url, failed),
    }
}
