//! One event to one subscription: attempts, the reply, the dead letter (spec/eventing.md 7.6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use kinglet_events::Event;
use kinglet_events::binding::{self, Format, Reply};
use kinglet_events::delivery::{self, FilterAnswer, Step};
use kinglet_events::headers::{self, Purpose};
use tokio::time::Instant;

use crate::access::Sender;
use crate::answer::Answer;
use crate::engine::{ANSWER_BYTES_MAX, Attempt, Delivered, Outcome, Receipt};
use crate::exchange::{self, Call, NoAnswer};
use crate::feed::{Addressable, Destination, Subscriber};
use crate::filter::{self, Filtered};
use crate::ingress;
use crate::plane::Plane;
use crate::short::{self, Place};
use crate::stored;
use crate::worker::Subscription;

/// After a start an object that an address names may not be known yet: the channel is fed before its Triggers. So long
/// is waited for it, counted from the moment the subscription was in force; then it does not exist.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// Attempts of one event that are all told to the log; then the last one and those whose number is a power of two.
const TOLD_MAX: u32 = 32;
/// Retries that may follow each other at once; after these, and without a back-off, there is [`PAUSE`] between them.
/// Knative has no pause, and a subscription with thousands of retries and no back-off keeps a processor busy.
const AT_ONCE_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

fn pause(number: u32) -> Duration {
    match number < AT_ONCE_MAX {
        true => Duration::ZERO,
        false => PAUSE,
    }
}

/// Delivers an event, and tells the engine what became of it. Cancelled, the event comes again.
pub(crate) async fn deliver(
    plane: Arc<Plane>,
    subscription: Arc<Subscription>,
    delivered: Delivered,
) {
    let Delivered {
        event,
        attempts,
        receipt,
        position,
    } = delivered;
    let (event, passed_on) = match stored::unpack(&event) {
        Ok(unpacked) => unpacked,
        Err(error) => {
            tracing::error!(
                channel = %subscription.channel, %position,
                "an event that was accepted cannot be read any more: {error}"
            );
            return receipt.finished(Outcome::Damaged);
        }
    };
    let delivery = DeliveryOf {
        plane: &plane,
        subscription: &subscription,
        event: &event,
        passed_on: &passed_on,
        receipt: &receipt,
    };
    // None: the subscription stops; without its receipt the event comes again.
    if let Some(outcome) = delivery.run(attempts).await {
        receipt.finished(outcome);
    }
}

struct DeliveryOf<'a> {
    plane: &'a Plane,
    subscription: &'a Subscription,
    event: &'a Event,
    passed_on: &'a HeaderMap,
    receipt: &'a Receipt,
}

/// How all attempts at one destination ended.
enum End {
    Answered(Answer),
    Failed(Failure),
    /// The subscription stops.
    Stopped,
}

/// What a dead letter says.
struct Failure {
    url: Arc<str>,
    answer: Result<Answer, NoAnswer>,
}

/// For whom the attempts are, and so which of them count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Subscriber,
    Reply,
    DeadLetter,
}

impl DeliveryOf<'_> {
    async fn run(&self, attempts: u32) -> Option<Outcome> {
        let config = self.subscription.config.load_full();
        let (reply, passed_on) = if config.subscriber.is_none() {
            // A Subscription may have a reply only: it gets the event itself.
            (self.event.clone(), self.passed_on.clone())
        } else {
            let end = self
                .try_all(Stage::Subscriber, self.event, self.passed_on, attempts)
                .await;
            let answer = match end {
                End::Answered(answer) => answer,
                End::Failed(failure) => return self.dead_letter(failure).await,
                End::Stopped => return None,
            };
            if answer.extensions().get::<Filtered>().is_some() {
                return Some(Outcome::Filtered);
            }
            let (parts, body) = answer.into_parts();
            match binding::decode_reply(&parts.headers, body) {
                Reply::Event(reply) => (*reply, self.passed_on_with(&parts.headers)),
                // Discarded silently, as in Knative.
                Reply::Empty | Reply::Other | Reply::Malformed(_) => {
                    return Some(Outcome::Delivered);
                }
            }
        };
        self.reply(&reply, &passed_on).await
    }

    /// Sends the reply; when it is not taken, the dead letter sink gets the event itself.
    async fn reply(&self, reply: &Event, passed_on: &HeaderMap) -> Option<Outcome> {
        let config = self.subscription.config.load_full();
        if config.reply.is_none() {
            return Some(Outcome::Delivered);
        }
        let subscribed = config.subscriber.as_ref();
        if subscribed.is_some_and(|to| !short::is_filter(&to.url, &self.plane.system_namespace)) {
            self.report_type(&config, reply);
        }
        match self.try_all(Stage::Reply, reply, passed_on, 0).await {
            End::Answered(_) => Some(Outcome::Delivered),
            End::Failed(failure) => self.dead_letter(failure).await,
            End::Stopped => None,
        }
    }

    /// The filter reports replies of Triggers itself.
    fn report_type(&self, config: &Subscriber, reply: &Event) {
        let channel = self.plane.channel(&self.subscription.channel);
        if channel.is_some_and(|channel| channel.route.load().auto_event_types) {
            let key = crate::feed::Key::new(
                self.subscription.channel.key.namespace.clone(),
                config.name.clone(),
            );
            let kind = &self.plane.subscription_kind;
            self.plane
                .reports
                .seen(Addressable::Subscription, kind, &key, reply);
        }
    }

    async fn dead_letter(&self, failure: Failure) -> Option<Outcome> {
        let config = self.subscription.config.load_full();
        if config.delivery.dead_letter.is_none() {
            return Some(Outcome::GivenUp);
        }
        let letter = self.letter(&failure);
        match self
            .try_all(Stage::DeadLetter, &letter, self.passed_on, 0)
            .await
        {
            End::Answered(_) => Some(Outcome::DeadLettered),
            End::Failed(_) => Some(Outcome::GivenUp),
            End::Stopped => None,
        }
    }

    /// The event with what is known of its failure.
    fn letter(&self, failure: &Failure) -> Event {
        let mut letter = self.event.clone();
        let status = failure
            .answer
            .as_ref()
            .ok()
            .map(|answer| answer.status().as_u16());
        let body = body_of(&failure.answer);
        let annotated = if short::is_filter(&failure.url, &self.plane.system_namespace) {
            match FilterAnswer::read(body) {
                Some(named) => {
                    let body = named.body().unwrap_or_default();
                    delivery::annotate(&mut letter, &named.destination, status, &body)
                }
                // As in Knative: the filter itself failed, or there was no time for its answer.
                None => Ok(()),
            }
        } else {
            delivery::annotate(&mut letter, &failure.url, status, body)
        };
        if let Err(error) = annotated {
            tracing::warn!(subscription = %self.subscription.uid, "a dead letter goes without its reason: {error}");
        }
        letter
    }

    /// Headers of a reply: those that the answer passes on, and the trace of the event.
    fn passed_on_with(&self, answer: &HeaderMap) -> HeaderMap {
        let mut passed_on = headers::forwarded(answer);
        for name in ["traceparent", "tracestate"] {
            if let (false, Some(value)) = (passed_on.contains_key(name), self.passed_on.get(name)) {
                passed_on.insert(name, value.clone());
            }
        }
        passed_on
    }

    /// Attempts until one succeeds, all failed, or the subscription stops. Each uses the configuration of its moment.
    async fn try_all(
        &self,
        stage: Stage,
        event: &Event,
        passed_on: &HeaderMap,
        attempts: u32,
    ) -> End {
        let mut number = attempts;
        loop {
            let config = self.subscription.config.load_full();
            let destination = match stage {
                Stage::Subscriber => &config.subscriber,
                Stage::Reply => &config.reply,
                Stage::DeadLetter => &config.delivery.dead_letter,
            };
            let Some(destination) = destination else {
                // It was taken away in between.
                return End::Answered(Answer::default());
            };
            let policy = config.delivery.policy;
            // After a restart there is one more, however many there were.
            number = number.min(policy.retries);
            let (at, begun) = (self.plane.clock.now(), Instant::now());
            let answer = self
                .attempt(stage, &config, destination, event, passed_on)
                .await;
            if let Ok(answer) = &answer
                && answer.extensions().get::<Filtered>().is_some()
            {
                // Nobody was called.
                return End::Answered(answer.clone());
            }
            let latency = begun.elapsed();
            let step = policy.after(number, ended(&answer), self.plane.clock.now());
            let is_last = !matches!(step, Step::RetryAfter(_));
            if is_last || number < TOLD_MAX || number.is_power_of_two() {
                self.record(stage, destination, at, latency, &answer);
            }
            match (step, answer) {
                (Step::Delivered, Ok(answer)) => return End::Answered(answer),
                (Step::RetryAfter(wait), _) => {
                    let wait = wait.max(pause(number));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.subscription.stopping.cancelled() => return End::Stopped,
                    }
                    number = number.saturating_add(1);
                }
                (Step::GiveUp | Step::Delivered, answer) => {
                    let url = destination.url.clone();
                    return End::Failed(Failure { url, answer });
                }
            }
        }
    }

    async fn attempt(
        &self,
        stage: Stage,
        config: &Subscriber,
        destination: &Destination,
        event: &Event,
        passed_on: &HeaderMap,
    ) -> Result<Answer, NoAnswer> {
        let policy = config.delivery.policy;
        let (purpose, format) = match stage {
            Stage::Subscriber => (Purpose::Subscriber, policy.format),
            Stage::Reply | Stage::DeadLetter => (Purpose::Sink, Format::Binary),
        };
        let namespace = &self.subscription.channel.key.namespace;
        let headers = headers::delivery(passed_on, namespace, purpose);
        let identity = config.identity.as_ref();
        let attempt = async {
            if let Some(place) = self.place(destination) {
                // Boxed: a reply's way through the ingress is not part of every delivery.
                let passed_on = headers::forwarded(&headers);
                let sender = Sender::Stage(identity);
                return Ok(Box::pin(self.in_place(place, event, passed_on, sender)).await);
            }
            let room = &self.subscription.room;
            let call = Call {
                destination,
                event,
                format,
                headers,
                identity,
                room,
            };
            exchange::post(&self.plane.outgoing, call).await
        };
        exchange::within(policy.timeout, &destination.url, attempt).await
    }

    /// Where in this process a destination is.
    fn place(&self, destination: &Destination) -> Option<Place> {
        if !self.plane.shortcuts {
            return None;
        }
        let (place, secured) = short::place_of(&destination.url, &self.plane.system_namespace)?;
        self.plane.serves(secured).then_some(place)
    }

    async fn in_place(
        &self,
        place: Place,
        event: &Event,
        passed_on: HeaderMap,
        sender: Sender<'_>,
    ) -> Answer {
        self.until_known(&place).await;
        match place {
            Place::Filter(path) => {
                filter::accept(self.plane, &path, event.clone(), &passed_on, sender).await
            }
            Place::Ingress(key) => {
                let broker = self.plane.broker(&key);
                let event = event.clone();
                ingress::accept(
                    self.plane,
                    &key,
                    broker.as_deref(),
                    event,
                    &passed_on,
                    sender,
                )
                .await
            }
        }
    }

    async fn until_known(&self, place: &Place) {
        let is_known = || {
            let tables = self.plane.tables.read();
            match place {
                Place::Filter(path) => tables.triggers.contains_key(&path.trigger),
                Place::Ingress(key) => tables.brokers.contains_key(key),
            }
        };
        if is_known() {
            return;
        }
        let mut changed = self.plane.changed.subscribe();
        let known = changed.wait_for(|_| is_known());
        let _ = tokio::time::timeout_at(self.subscription.began + KNOWN_WITHIN, known).await;
    }

    /// Tells the engine and the reconcilers of an attempt. Of replies and dead letters the log gets failures only.
    fn record(
        &self,
        stage: Stage,
        destination: &Destination,
        at: jiff::Timestamp,
        latency: Duration,
        answer: &Result<Answer, NoAnswer>,
    ) {
        let status = answer.as_ref().ok().map(Answer::status);
        let is_success = status.is_some_and(|status| status.is_success());
        let words = said(&self.plane.system_namespace, destination, answer);
        let beginning = match stage {
            Stage::Subscriber => words.body.clone(),
            Stage::Reply => format!("reply to {}: {}", destination.url, words.text()).into(),
            Stage::DeadLetter => {
                format!("dead letter to {}: {}", destination.url, words.text()).into()
            }
        };
        let status = status.as_ref().map(StatusCode::as_u16);
        if stage == Stage::Subscriber || !is_success {
            self.receipt.attempted(Attempt {
                at,
                status,
                latency,
                answer: beginning.slice(..beginning.len().min(ANSWER_BYTES_MAX)),
            });
        }
        let failure = (!is_success).then(|| (status, words.sentence(status)));
        // A dead letter that is taken says nothing about the subscriber.
        if stage != Stage::DeadLetter || !is_success {
            self.subscription.attempted(self.plane, at, failure);
        }
    }
}

/// Who answered, and with what.
struct Words {
    url: Arc<str>,
    body: Bytes,
}

/// So much of an answer is quoted in a sentence.
const QUOTED_CHARACTERS_MAX: usize = 200;

impl Words {
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(ANSWER_BYTES_MAX)]);
        text.trim().chars().take(QUOTED_CHARACTERS_MAX).collect()
    }

    fn sentence(&self, status: Option<u16>) -> String {
        let text = self.text();
        match status {
            Some(status) if text.is_empty() => format!("{} answers {status}", self.url),
            Some(status) => format!("{} answers {status}: {text}", self.url),
            None => text,
        }
    }
}

/// Takes the filter's envelope off.
fn said(
    system_namespace: &str,
    destination: &Destination,
    answer: &Result<Answer, NoAnswer>,
) -> Words {
    let body = match answer {
        Ok(answer) => answer.body().clone(),
        Err(no_answer) => no_answer.0.clone().into(),
    };
    let is_success = answer
        .as_ref()
        .is_ok_and(|answer| answer.status().is_success());
    if !is_success
        && short::is_filter(&destination.url, system_namespace)
        && let Some(named) = FilterAnswer::read(&body)
    {
        let body = named.body().unwrap_or_default().into();
        return Words {
            url: named.destination.into(),
            body,
        };
    }
    Words {
        url: destination.url.clone(),
        body,
    }
}

fn body_of(answer: &Result<Answer, NoAnswer>) -> &[u8] {
    match answer {
        Ok(answer) => answer.body(),
        Err(no_answer) => no_answer.0.as_bytes(),
    }
}

fn ended(answer: &Result<Answer, NoAnswer>) -> delivery::Attempt<'_> {
    match answer {
        Err(_) => delivery::Attempt::NoAnswer,
        Ok(answer) => delivery::Attempt::Answered {
            status: answer.status().as_u16(),
            retry_after: answer
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()),
        },
    }
}
