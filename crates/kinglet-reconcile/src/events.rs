//! Events: recorded in the background, repeated ones counted, never on anybody's critical path.
//!
//! An event that finds the queue full is dropped: Events tell a story to people and are no state. What one source says
//! about one object is bounded as client-go bounds it: a rate, and many messages under one reason become one Event.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::caches::Caches;
use crate::error::ReconcileError;
use crate::event::EventRecord;
use crate::wire;

/// Notes waiting to be written; a burst of 20 services makes about 200.
const WAITING_MAX: usize = 2048;
/// Events remembered for counting; the same number as client-go's cache.
const REMEMBERED_MAX: usize = 4096;
/// One source may write so many Events about one object at once, then one in five minutes (client-go's numbers).
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// Different messages under one reason about one object, before they are combined, and for how long they are counted
/// together (client-go's numbers).
const SIMILAR_MAX: usize = 10;
const SIMILAR_KEPT_SECONDS: i64 = 600;
const COMBINED: &str = "(combined from similar events): ";

struct PendingEvent {
    component: &'static str,
    event: EventRecord,
    at: Timestamp,
}

/// The handle that records.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<PendingEvent>,
    clock: kinglet_process::clock::Clock,
}

impl Recorder {
    /// Starts the task that writes.
    pub(crate) fn start(caches: &Caches) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let (client, receiver) = (caches.client().clone(), Arc::new(Mutex::new(receiver)));
        let tasks = caches.tasks().clone();
        tasks.clone().restarted("events", move || {
            let (stop, client, receiver) = (tasks.token(), client.clone(), Arc::clone(&receiver));
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = write_all(client, &receiver) => {}
                }
            }
        });
        Self {
            sender,
            clock: caches.clock().clone(),
        }
    }

    /// Records a event; never waits.
    pub(crate) fn record(&self, component: &'static str, event: EventRecord) {
        if self
            .sender
            .try_send(PendingEvent {
                component,
                event,
                at: self.clock.now(),
            })
            .is_err()
        {
            tracing::debug!(component, "an event was dropped, too many are waiting");
        }
    }
}

/// What makes two events the same.
#[derive(Hash)]
struct Sameness<'a> {
    component: &'static str,
    uid: &'a str,
    name: &'a str,
    severity: &'static str,
    reason: &'a str,
    message: &'a str,
}

/// Remembers by hashes of 128 bits: thousands of texts would take megabytes. The keys are random, so nobody finds two texts
/// with the same hash.
#[derive(Default)]
struct Hashes(RandomState, RandomState);

impl Hashes {
    fn of(&self, value: &impl Hash) -> u128 {
        u128::from(self.0.hash_one(value)) << 64 | u128::from(self.1.hash_one(value))
    }
}

struct RecordedEvent {
    name: String,
    count: u32,
}

/// A bounded map that forgets its oldest entries.
struct BoundedMap<V> {
    known: HashMap<u128, V>,
    order: VecDeque<u128>,
}

impl<V> BoundedMap<V> {
    fn new() -> Self {
        Self {
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn entry(&mut self, key: u128, new: impl FnOnce() -> V) -> &mut V {
        if !self.known.contains_key(&key) {
            if self.order.len() >= REMEMBERED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(key);
        }
        self.known.entry(key).or_insert_with(new)
    }
}

struct Allowance {
    tokens: f64,
    at: Timestamp,
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.at = now;
        self.tokens = (self.tokens + passed * REFILL_PER_SECOND).min(BURST);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// The messages of late under one reason.
struct Similar {
    messages: HashSet<u64>,
    last: Timestamp,
}

impl Similar {
    /// Whether this message is one of too many different ones.
    fn is_one_of_many(&mut self, message: &str, now: Timestamp) -> bool {
        if now.as_second() - self.last.as_second() > SIMILAR_KEPT_SECONDS {
            self.messages.clear();
        }
        self.last = now;
        let mut hash = std::hash::DefaultHasher::new();
        message.hash(&mut hash);
        let hash = hash.finish();
        if self.messages.len() < SIMILAR_MAX {
            self.messages.insert(hash);
        }
        self.messages.len() >= SIMILAR_MAX
    }
}

/// Writes until there is nobody any more who records. What a panic interrupts is lost; the next one is counted anew.
async fn write_all(client: kube::Client, events: &Mutex<mpsc::Receiver<PendingEvent>>) {
    let mut events = events.lock().await;
    let hashes = Hashes::default();
    let mut recorded: BoundedMap<RecordedEvent> = BoundedMap::new();
    let mut similar: BoundedMap<Similar> = BoundedMap::new();
    let mut allowances: BoundedMap<Allowance> = BoundedMap::new();
    while let Some(mut pending) = events.recv().await {
        let about = &pending.event.about;
        let subject = about
            .uid
            .as_deref()
            .or(about.name.as_deref())
            .unwrap_or_default();
        let allowed = hashes.of(&(pending.component, subject));
        let allowance = allowances.entry(allowed, || Allowance {
            tokens: BURST,
            at: pending.at,
        });
        if !allowance.take(pending.at) {
            continue;
        }
        let same = sameness(&pending);
        let reason = hashes.of(&Sameness {
            message: "",
            ..same
        });
        let many = similar
            .entry(reason, || Similar {
                messages: HashSet::new(),
                last: pending.at,
            })
            .is_one_of_many(same.message, pending.at);
        let key = if many { reason } else { hashes.of(&same) };
        if many {
            pending.event.message.insert_str(0, COMBINED);
        }
        let recorded = recorded.entry(key, || RecordedEvent {
            name: String::new(),
            count: 0,
        });
        if let Err(error) = write(&client, &pending, recorded).await {
            tracing::debug!(error = %error, reason = pending.event.reason, "an event could not be written");
        }
    }
    std::future::pending().await
}

async fn write(
    client: &kube::Client,
    pending: &PendingEvent,
    recorded: &mut RecordedEvent,
) -> Result<(), ReconcileError> {
    let namespace = namespace_for(&pending.event.about);
    let path = format!("/api/v1/namespaces/{namespace}/events");
    if recorded.count > 0 {
        let patch = json!({
            "count": recorded.count + 1, "lastTimestamp": pending.at.to_string(),
            "message": pending.event.message,
        });
        let request = http::Request::patch(format!("{path}/{}", recorded.name))
            .header("content-type", "application/merge-patch+json")
            .header("accept", "application/json")
            .body(patch.to_string().into_bytes())
            .map_err(|source| ReconcileError::Permanent(source.to_string()))?;
        match wire::open(client, "counting an event", request).await {
            Ok(_) => {
                recorded.count += 1;
                return Ok(());
            }
            // Events expire; then the count starts anew.
            Err(ReconcileError::NotFound { .. }) => recorded.count = 0,
            Err(error) => return Err(error),
        }
    }
    let body = event(pending);
    recorded.name = body
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    wire::call(
        client,
        "recording an event",
        Method::POST,
        &path,
        body.to_string().into_bytes(),
    )
    .await?;
    recorded.count = 1;
    Ok(())
}

fn namespace_for(about: &ObjectReference) -> &str {
    about
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or("default")
}

fn sameness(pending: &PendingEvent) -> Sameness<'_> {
    let event = &pending.event;
    Sameness {
        component: pending.component,
        uid: event.about.uid.as_deref().unwrap_or_default(),
        name: event.about.name.as_deref().unwrap_or_default(),
        severity: event.severity.as_str(),
        reason: &event.reason,
        message: &event.message,
    }
}

fn event(pending: &PendingEvent) -> Value {
    let event = &pending.event;
    let at = pending.at.to_string();
    // Events carry whole seconds.
    let second = jiff::Timestamp::from_second(pending.at.as_second())
        .map_or(at, |second| second.to_string());
    let name = format!(
        "{}.{:x}",
        event.about.name.as_deref().unwrap_or("unknown"),
        pending.at.as_nanosecond()
    );
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace_for(&event.about)},
        "involvedObject": event.about,
        "reason": event.reason,
        "message": event.message,
        "type": event.severity.as_str(),
        "source": {"component": pending.component},
        "reportingComponent": pending.component,
        "reportingInstance": "",
        "firstTimestamp": second,
        "lastTimestamp": second,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Severity;

    #[test]
    fn a_chatty_source_is_held_to_its_allowance() {
        let start = Timestamp::from_second(1000).unwrap();
        let mut allowance = Allowance {
            tokens: BURST,
            at: start,
        };
        assert_eq!((0..40).filter(|_| allowance.take(start)).count(), 25);
        assert!(allowance.take(Timestamp::from_second(1301).unwrap()));
    }

    #[test]
    fn an_event_about_a_cluster_scoped_object_lands_in_default() {
        let about = ObjectReference {
            name: Some("node".into()),
            ..ObjectReference::default()
        };
        let record = EventRecord {
            about,
            severity: Severity::Normal,
            reason: "Started".into(),
            message: "m".into(),
        };
        let event = event(&PendingEvent {
            component: "c",
            event: record,
            at: Timestamp::from_second(1000).unwrap(),
        });
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:16:40Z");
    }

    #[test]
    fn many_messages_under_one_reason_become_one() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut similar = Similar {
            messages: HashSet::new(),
            last: at(0),
        };
        let combined = (0..30)
            .filter(|number| similar.is_one_of_many(&format!("pod-{number}"), at(*number)))
            .count();
        assert_eq!(combined, 21, "the first nine stand alone");
        assert!(!similar.is_one_of_many("later", at(1000)));
        for _ in 0..30 {
            assert!(!similar.is_one_of_many("the same", at(1001)));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory: BoundedMap<()> = BoundedMap::new();
        for number in 0..REMEMBERED_MAX + 10 {
            memory.entry(number as u128, || ());
        }
        assert_eq!(memory.known.len(), REMEMBERED_MAX);
    }
}
