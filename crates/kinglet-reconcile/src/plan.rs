//! A plan: what a pure decision wants written, as data. [`crate::Context::apply`] carries it out and decides nothing.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::caches::Caches;
use crate::error::ReconcileError;
use crate::object::{Key, Object, key_of, namespace_of};

/// When to look at a key again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    #[default]
    Done,
    /// When something changes, at the latest after so long.
    After(Duration),
    /// At once, behind the keys that wait already.
    Again,
}

/// What happens to the dependants of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cascade {
    /// Deleted by the garbage collector afterwards.
    #[default]
    Background,
    /// Deleted first; the owner waits for them.
    Foreground,
    /// Left alone, without their owner.
    Orphan,
}

impl Cascade {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An Event to be recorded about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// What it is about.
    pub about: ObjectReference,
    /// Normal or Warning.
    pub severity: Severity,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl EventRecord {
    /// A event about `object`.
    pub fn new<K: Object>(
        object: &K,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            about: reference_to(object),
            severity,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The reference that Events and statuses use for `object`.
pub fn reference_to<K: Object>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// What a [`Write`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PUT over the version seen; left out when nothing but the status differs.
    Update,
    /// PUT of the status subresource over the version seen; left out when it is the same.
    Status,
    /// DELETE of exactly the object seen; that it is gone already counts as done.
    Delete {
        /// Dependants.
        cascade: Cascade,
        /// Uid that must match.
        uid: Option<String>,
        /// Version that must match, when the decision depends on it.
        version: Option<String>,
        /// Seconds to end gracefully, when not the object's own.
        grace_seconds: Option<u32>,
    },
}

/// One write to one object, its types erased.
#[derive(Clone)]
pub struct Write {
    /// What is done.
    pub verb: Verb,
    /// Kind of the object.
    pub kind: String,
    /// Which object; the name is empty when the server generates it.
    pub key: Key,
    /// The object as it shall be (null for a deletion).
    pub body: Value,
    /// The object as it was seen.
    pub seen: Option<Value>,
    /// Path of the collection.
    pub(crate) path: String,
    pub(crate) absorb: fn(&Caches, &[u8]) -> Result<(), serde_json::Error>,
    pub(crate) forget: fn(&Caches, &Key, &str),
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {} {} {}",
            self.verb, self.kind, self.key, self.body
        )
    }
}

impl PartialEq for Write {
    fn eq(&self, other: &Self) -> bool {
        self.verb == other.verb
            && self.kind == other.kind
            && self.key == other.key
            && self.body == other.body
    }
}

impl Write {
    /// Creates `object`.
    pub fn create<K: Object>(object: &K) -> Self {
        Self::new::<K>(Verb::Create, key_of(object), to_value(object), None)
    }

    /// Makes `seen` equal `desired` (without its status).
    ///
    /// Of the metadata only labels, annotations, owner references and finalizers are taken from `desired`.
    pub fn update<K: Object>(seen: &K, desired: &K) -> Self {
        let before = to_value(seen);
        let mut body = to_value(desired);
        let wanted = body.get_mut("metadata").map(Value::take);
        let mut metadata = before.get("metadata").cloned().unwrap_or_default();
        for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
            let value = wanted
                .as_ref()
                .and_then(|meta| meta.get(field))
                .filter(|value| !is_blank(value));
            if let Value::Object(metadata) = &mut metadata {
                match value {
                    Some(value) => metadata.insert(field.to_owned(), value.clone()),
                    None => metadata.remove(field),
                };
            }
        }
        if let Value::Object(body) = &mut body {
            body.insert("metadata".to_owned(), metadata);
            match before.get("status") {
                Some(status) => body.insert("status".to_owned(), status.clone()),
                None => body.remove("status"),
            };
        }
        Self::new::<K>(Verb::Update, key_of(seen), body, Some(before))
    }

    /// Makes the status of `seen` equal `status`.
    pub fn status<K: Object>(seen: &K, status: &impl Serialize) -> Self {
        let before = to_value(seen);
        let mut body = before.clone();
        if let Value::Object(body) = &mut body {
            body.insert(
                "status".to_owned(),
                serde_json::to_value(status).expect("a status has string keys only"),
            );
        }
        Self::new::<K>(Verb::Status, key_of(seen), body, Some(before))
    }

    /// Deletes exactly the object seen (by its uid).
    pub fn delete<K: Object>(seen: &K, cascade: Cascade) -> Self {
        let verb = Verb::Delete {
            cascade,
            uid: seen.meta().uid.clone(),
            version: None,
            grace_seconds: None,
        };
        Self::new::<K>(verb, key_of(seen), Value::Null, None)
    }

    /// Deletes the object only if it has not changed since it was seen.
    pub fn delete_unchanged<K: Object>(seen: &K, cascade: Cascade) -> Self {
        let meta = seen.meta();
        let verb = Verb::Delete {
            cascade,
            uid: meta.uid.clone(),
            version: meta.resource_version.clone(),
            grace_seconds: None,
        };
        Self::new::<K>(verb, key_of(seen), Value::Null, None)
    }

    /// Whether the object already is as it shall be.
    pub fn changes_nothing(&self) -> bool {
        let Some(seen) = &self.seen else { return false };
        match self.verb {
            Verb::Create | Verb::Delete { .. } => false,
            Verb::Update => same_but(seen, &self.body, "status"),
            Verb::Status => same(
                seen.get("status").unwrap_or(&Value::Null),
                self.body.get("status").unwrap_or(&Value::Null),
            ),
        }
    }

    fn new<K: Object>(verb: Verb, key: Key, body: Value, seen: Option<Value>) -> Self {
        let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
        let path = K::url_path(&(), namespace);
        let kind = K::kind(&()).into_owned();
        Self {
            verb,
            kind,
            key,
            body,
            seen,
            path,
            absorb: absorb::<K>,
            forget: Caches::forget::<K>,
        }
    }

    /// Words for what is attempted, such as `updating Deployment default/hello`.
    pub(crate) fn attempt(&self) -> String {
        let doing = match self.verb {
            Verb::Create => "creating",
            Verb::Update => "updating",
            Verb::Status => "updating the status of",
            Verb::Delete { .. } => "deleting",
        };
        format!("{doing} {} {}", self.kind, self.key)
    }
}

fn absorb<K: Object>(caches: &Caches, answer: &[u8]) -> Result<(), serde_json::Error> {
    caches.absorb::<K>(serde_json::from_slice(answer)?);
    Ok(())
}

/// What a decision wants done, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is written, in this order.
    pub steps: Vec<Step>,
    /// When to look again.
    pub next: Next,
    /// An error to report once everything is written; the key is retried if that can help.
    pub trouble: Option<Trouble>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A write; the plan stops at the first that fails.
    Write(Box<Write>),
    /// An Event; never waits and never fails.
    Event(Box<EventRecord>),
}

/// A domain error found while deciding; becomes a [`ReconcileError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whether another try may help.
    pub retry: bool,
    /// What is wrong.
    pub message: String,
}

impl From<Trouble> for ReconcileError {
    fn from(trouble: Trouble) -> Self {
        if trouble.retry {
            Self::Transient(trouble.message)
        } else {
            Self::Permanent(trouble.message)
        }
    }
}

impl Plan {
    /// A plan that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a write.
    pub fn write(&mut self, write: Write) -> &mut Self {
        self.steps.push(Step::Write(Box::new(write)));
        self
    }

    /// Creates an object.
    pub fn create<K: Object>(&mut self, object: &K) -> &mut Self {
        self.write(Write::create(object))
    }

    /// See [`Write::update`].
    pub fn update<K: Object>(&mut self, seen: &K, desired: &K) -> &mut Self {
        self.write(Write::update(seen, desired))
    }

    /// See [`Write::status`].
    pub fn status<K: Object>(&mut self, seen: &K, status: &impl Serialize) -> &mut Self {
        self.write(Write::status(seen, status))
    }

    /// Creates `desired`, or makes what was seen equal to it.
    pub fn ensure<K: Object>(&mut self, seen: Option<&K>, desired: &K) -> &mut Self {
        match seen {
            Some(seen) => self.update(seen, desired),
            None => self.create(desired),
        }
    }

    /// Deletes exactly the object seen.
    pub fn delete<K: Object>(&mut self, seen: &K, cascade: Cascade) -> &mut Self {
        self.write(Write::delete(seen, cascade))
    }

    /// Adds a finalizer, if it is missing.
    pub fn add_finalizer<K: Object>(&mut self, seen: &K, finalizer: &str) -> &mut Self {
        let mut desired = seen.clone();
        let all = desired.meta_mut().finalizers.get_or_insert_default();
        if !all.iter().any(|known| known == finalizer) {
            all.push(finalizer.to_owned());
            self.update(seen, &desired);
        }
        self
    }

    /// Removes a finalizer, if it is there.
    pub fn remove_finalizer<K: Object>(&mut self, seen: &K, finalizer: &str) -> &mut Self {
        let mut desired = seen.clone();
        let all = desired.meta_mut().finalizers.get_or_insert_default();
        if all.iter().any(|known| known == finalizer) {
            all.retain(|known| known != finalizer);
            self.update(seen, &desired);
        }
        self
    }

    /// Records a Normal Event.
    pub fn normal<K: Object>(
        &mut self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        self.event(EventRecord::new(about, Severity::Normal, reason, message))
    }

    /// Records a Warning Event.
    pub fn warning<K: Object>(
        &mut self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        self.event(EventRecord::new(about, Severity::Warning, reason, message))
    }

    /// Records an Event.
    pub fn event(&mut self, event: EventRecord) -> &mut Self {
        self.steps.push(Step::Event(Box::new(event)));
        self
    }

    /// Looks again after `delay` at the latest (the shortest of several counts).
    pub fn after(&mut self, delay: Duration) -> &mut Self {
        self.next = match self.next {
            Next::Done => Next::After(delay),
            Next::After(other) => Next::After(other.min(delay)),
            Next::Again => Next::Again,
        };
        self
    }

    /// Reports an error once everything is written.
    pub fn fail(&mut self, retry: bool, message: impl Into<String>) -> &mut Self {
        self.trouble = Some(Trouble {
            retry,
            message: message.into(),
        });
        self
    }

    /// Everything of `other`, behind what is here.
    pub fn append(&mut self, other: Self) -> &mut Self {
        let Self {
            steps,
            next,
            trouble,
        } = other;
        self.steps.extend(steps);
        match next {
            Next::Done => {}
            Next::After(delay) => {
                self.after(delay);
            }
            Next::Again => self.next = Next::Again,
        }
        self.trouble = self.trouble.take().or(trouble);
        self
    }

    /// The writes, without Events: what tests look at.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write(write) => Some(&**write),
            Step::Event(_) => None,
        })
    }

    /// The Events: what tests look at.
    pub fn events(&self) -> impl Iterator<Item = &EventRecord> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write(_) => None,
            Step::Event(event) => Some(&**event),
        })
    }

    /// The namespace of an object that a plan is about, for a child.
    pub fn namespace_for<K: Object>(owner: &K) -> Option<String> {
        Some(namespace_of(owner))
            .filter(|namespace| !namespace.is_empty())
            .map(str::to_owned)
    }
}

fn to_value<K: Object>(object: &K) -> Value {
    serde_json::to_value(object).expect("a Kubernetes object has string keys only")
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Equality in which a null field and a missing one are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_maps(a, b, ""),
        (Value::Object(a), Value::Null) => a.values().all(Value::is_null),
        (Value::Null, Value::Object(b)) => b.values().all(Value::is_null),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b,
    }
}

fn same_maps(a: &Map<String, Value>, b: &Map<String, Value>, but: &str) -> bool {
    let covered = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter()
            .filter(|(key, _)| *key != but)
            .all(|(key, value)| match b.get(key) {
                Some(other) => same(value, other),
                None => value.is_null(),
            })
    };
    covered(a, b) && covered(b, a)
}

fn same_but(a: &Value, b: &Value, but: &str) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_maps(a, b, but),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn map(value: Value) -> ConfigMap {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_update_takes_from_the_metadata_only_what_controllers_own() {
        let seen = map(
            json!({"metadata": {"name": "x", "namespace": "a", "uid": "1", "resourceVersion": "5", "labels": {"a": "1"}}, "data": {"k": "v"}}),
        );
        let desired = map(
            json!({"metadata": {"name": "x", "namespace": "a", "annotations": {"b": "2"}, "labels": {}}, "data": {"k": "v"}}),
        );
        let write = Write::update(&seen, &desired);
        assert_eq!(
            write.body["metadata"],
            json!({"name": "x", "namespace": "a", "uid": "1", "resourceVersion": "5", "annotations": {"b": "2"}})
        );
        assert!(!write.changes_nothing());
        assert!(Write::update(&seen, &seen.clone()).changes_nothing());
    }

    #[test]
    fn a_status_is_written_only_when_it_differs() {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(
            json!({"metadata": {"name": "x", "namespace": "a"}, "status": {"phase": "Running"}}),
        )
        .unwrap();
        assert!(
            Write::status(&pod, &json!({"phase": "Running", "reason": null})).changes_nothing()
        );
        assert!(!Write::status(&pod, &json!({"phase": "Failed"})).changes_nothing());
    }

    #[test]
    fn the_shortest_wait_counts() {
        let mut plan = Plan::new();
        plan.after(Duration::from_secs(5))
            .after(Duration::from_secs(2))
            .after(Duration::from_secs(9));
        assert_eq!(plan.next, Next::After(Duration::from_secs(2)));
    }
}
