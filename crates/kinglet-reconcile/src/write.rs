//! One write to one object, as data: [`crate::Context`] carries it out.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cache::parse;
use crate::caches::Caches;
use crate::graft::graft;
use crate::kinds::ResourceKind;
use crate::object::{Key, Object, key_of};

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

/// What a [`Write`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PUT over the version seen; left out when nothing but the status differs.
    Update,
    /// PUT of the status subresource over the version seen; left out when it is the same.
    Status,
    /// PUT of the scale subresource over the version seen; left out when it is the same.
    Scale {
        /// Replicas as they were.
        from: i32,
        /// Replicas as they shall be.
        to: i32,
    },
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
    pub observed: Option<Value>,
    /// Path of the collection.
    pub(crate) path: String,
    pub(crate) absorb: fn(&Caches, &Bytes) -> Result<(), serde_json::Error>,
    /// The JSON of the object and its version, from the caches.
    pub(crate) raw: fn(&Caches, &Key) -> Option<(u64, Bytes)>,
    /// What our type makes of a JSON.
    pub(crate) retyped: fn(&[u8]) -> Result<Value, serde_json::Error>,
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

    /// Creates `object` with, at `pointer`, also those fields of a source that our types do not know: `raw` is the source as
    /// the API server has it, `read` the same as our type has it.
    #[must_use]
    pub fn with_unknown_fields(
        mut self,
        pointer: &str,
        raw: &Value,
        read: &impl Serialize,
    ) -> Self {
        let read = serde_json::to_value(read).expect("a template has string keys only");
        if let Some(known) = self.body.pointer_mut(pointer).filter(|_| !raw.is_null()) {
            *known = graft(raw.clone(), &read, known);
        }
        self
    }

    /// Makes `seen` equal `desired` (without its status). Fields that our types do not know stay as they are.
    ///
    /// Of the metadata only labels, annotations, owner references and finalizers are taken from `desired`.
    pub fn update<K: Object>(observed: &K, desired: &K) -> Self {
        let before = to_value(observed);
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
        Self::new::<K>(Verb::Update, key_of(observed), body, Some(before))
    }

    /// Creates an object of a kind that was found by discovery.
    pub fn create_untyped(kind: &ResourceKind, body: Value) -> Self {
        Self::untyped(Verb::Create, kind, body, None)
    }

    /// Makes an object of a kind that was found by discovery equal `desired`; both are whole.
    pub fn update_untyped(kind: &ResourceKind, observed: Value, desired: Value) -> Self {
        Self::untyped(Verb::Update, kind, desired, Some(observed))
    }

    fn untyped(verb: Verb, kind: &ResourceKind, body: Value, observed: Option<Value>) -> Self {
        let text = |field: &str| body["metadata"][field].as_str().unwrap_or_default();
        let key = Key::new(text("namespace"), text("name"));
        Self {
            verb,
            kind: kind.kind.clone(),
            path: kind.path(Some(&key.namespace)),
            key,
            body,
            observed,
            absorb: Caches::absorb_untyped,
            // The body is the raw object already, and the version in it makes a stale one lose.
            raw: |_, _| None,
            retyped: |raw| serde_json::from_slice(raw),
            forget: |_, _, _| {},
        }
    }

    /// Makes the status of `seen` equal `status`.
    pub fn status<K: Object>(observed: &K, status: &impl Serialize) -> Self {
        let before = to_value(observed);
        let mut body = before.clone();
        if let Value::Object(body) = &mut body {
            body.insert(
                "status".to_owned(),
                serde_json::to_value(status).expect("a status has string keys only"),
            );
        }
        Self::new::<K>(Verb::Status, key_of(observed), body, Some(before))
    }

    /// Sets the replicas of a kind that has a scale subresource, which holds nothing else. `from` is what was seen.
    pub fn scale<K: Object>(observed: &K, from: i32, to: i32) -> Self {
        let meta = observed.meta();
        let body = json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "resourceVersion": meta.resource_version,
            },
            "spec": {"replicas": to},
        });
        Self {
            // The answer is a Scale, so the caches hear of the change by their watch.
            absorb: |_, _| Ok(()),
            ..Self::new::<K>(Verb::Scale { from, to }, key_of(observed), body, None)
        }
    }

    /// Deletes exactly the object seen (by its uid).
    pub fn delete<K: Object>(observed: &K, cascade: Cascade) -> Self {
        let verb = Verb::Delete {
            cascade,
            uid: observed.meta().uid.clone(),
            version: None,
            grace_seconds: None,
        };
        Self::new::<K>(verb, key_of(observed), Value::Null, None)
    }

    /// Deletes the object only if it has not changed since it was seen.
    pub fn delete_unchanged<K: Object>(observed: &K, cascade: Cascade) -> Self {
        let meta = observed.meta();
        let verb = Verb::Delete {
            cascade,
            uid: meta.uid.clone(),
            version: meta.resource_version.clone(),
            grace_seconds: None,
        };
        Self::new::<K>(verb, key_of(observed), Value::Null, None)
    }

    /// Whether the object already is as it shall be.
    pub fn changes_nothing(&self) -> bool {
        if let Verb::Scale { from, to } = self.verb {
            return from == to;
        }
        let Some(observed) = &self.observed else {
            return false;
        };
        match self.verb {
            Verb::Create | Verb::Scale { .. } | Verb::Delete { .. } => false,
            Verb::Update => same_but(observed, &self.body, "status"),
            Verb::Status => same(
                observed.get("status").unwrap_or(&Value::Null),
                self.body.get("status").unwrap_or(&Value::Null),
            ),
        }
    }

    fn new<K: Object>(verb: Verb, key: Key, body: Value, observed: Option<Value>) -> Self {
        let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
        let path = K::url_path(&(), namespace);
        let kind = K::kind(&()).into_owned();
        Self {
            verb,
            kind,
            key,
            body,
            observed,
            path,
            absorb: absorb::<K>,
            raw: Caches::raw::<K>,
            retyped: retyped::<K>,
            forget: Caches::forget::<K>,
        }
    }

    /// Words for what is attempted, such as `updating Deployment default/hello`.
    pub(crate) fn attempt(&self) -> String {
        let doing = match self.verb {
            Verb::Create => "creating",
            Verb::Update => "updating",
            Verb::Status => "updating the status of",
            Verb::Scale { .. } => "scaling",
            Verb::Delete { .. } => "deleting",
        };
        format!("{doing} {} {}", self.kind, self.key)
    }
}

fn absorb<K: Object>(caches: &Caches, answer: &Bytes) -> Result<(), serde_json::Error> {
    caches.absorb::<K>(answer).map(|_| ())
}

fn retyped<K: Object>(raw: &[u8]) -> Result<Value, serde_json::Error> {
    Ok(to_value(&parse::<K>(raw)?))
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

    fn map(value: Value) -> ConfigMap {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_update_takes_from_the_metadata_only_what_controllers_own() {
        let observed = map(
            json!({"metadata": {"name": "x", "namespace": "a", "uid": "1", "resourceVersion": "5", "labels": {"a": "1"}}, "data": {"k": "v"}}),
        );
        let desired = map(
            json!({"metadata": {"name": "x", "namespace": "a", "annotations": {"b": "2"}, "labels": {}}, "data": {"k": "v"}}),
        );
        let write = Write::update(&observed, &desired);
        assert_eq!(
            write.body["metadata"],
            json!({"name": "x", "namespace": "a", "uid": "1", "resourceVersion": "5", "annotations": {"b": "2"}})
        );
        assert!(!write.changes_nothing());
        assert!(Write::update(&observed, &observed.clone()).changes_nothing());
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
}
