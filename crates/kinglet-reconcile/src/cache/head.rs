//! The head of an object: what indexes, wake-ups and the garbage collector need of it, without its body.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::dynamic::Copies;
use crate::object::Key;

/// The metadata of an object as every kind has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Namespace (empty for cluster-scoped kinds) and name.
    pub key: Key,
    /// Uid, empty before the API server gave one.
    pub uid: Arc<str>,
    /// The resourceVersion as a number, zero when it is none.
    pub version: u64,
    /// Whether deletion was asked for.
    pub deleting: bool,
    /// Finalizers.
    pub finalizers: Box<[Arc<str>]>,
    /// Labels, by name.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Owner references.
    pub owners: Box<[Owner]>,
}

/// One owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Uid.
    pub uid: Arc<str>,
    /// Whether it is the controller, if it says so.
    pub controller: Option<bool>,
    /// Whether a foreground deletion of the owner waits for this object, if it says so.
    pub block_owner_deletion: Option<bool>,
}

impl Head {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        let at = self
            .labels
            .binary_search_by(|(known, _)| (**known).cmp(name));
        Some(&*self.labels.get(at.ok()?)?.1)
    }

    /// The owner that is marked as controller.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners
            .iter()
            .find(|owner| owner.controller == Some(true))
    }

    /// Bytes held for this head alone, without the words that many share.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.key.name.len()
            + self.uid.len()
            + size_of_val(&*self.finalizers)
            + size_of_val(&*self.labels)
            + size_of_val(&*self.owners)
    }
}

impl Owner {
    /// Whether it points to this group and kind, whatever the version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        let of = self.api_version.rsplit_once('/');
        *self.kind == *kind && of.map_or("", |(group, _)| group) == group
    }

    /// The reference as it is written.
    pub fn to_json(&self) -> Value {
        let mut out = json!({"apiVersion": *self.api_version, "kind": *self.kind, "name": *self.name, "uid": *self.uid});
        for (field, value) in [
            ("controller", self.controller),
            ("blockOwnerDeletion", self.block_owner_deletion),
        ] {
            if let Some(value) = value {
                out[field] = json!(value);
            }
        }
        out
    }
}

/// Strings that many heads share: namespaces, labels, kinds, owners. Kept while somebody uses them.
#[derive(Default)]
pub(crate) struct Words {
    words: Mutex<HashSet<Arc<str>>>,
    /// The typed copies of the same caches.
    pub(super) copies: Arc<Copies>,
}

impl Words {
    /// The typed copies of all objects that share these words.
    pub(crate) fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    fn word(&self, text: &str) -> Arc<str> {
        let mut words = self.words.lock();
        if let Some(known) = words.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = Arc::from(text);
        words.insert(Arc::clone(&word));
        word
    }

    /// Forgets what nobody uses any more.
    pub(crate) fn sweep(&self) {
        self.words.lock().retain(|word| Arc::strong_count(word) > 1);
    }
}

#[derive(Deserialize)]
struct RawObject<'a> {
    #[serde(borrow)]
    metadata: RawMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(default)]
    uid: Option<Cow<'a, str>>,
    #[serde(default)]
    resource_version: Option<Cow<'a, str>>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    finalizers: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<RawOwner<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOwner<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    controller: Option<bool>,
    #[serde(default)]
    block_owner_deletion: Option<bool>,
}

/// Reads the head of an object.
pub(crate) fn read(raw: &[u8], words: &Words) -> Result<Head, serde_json::Error> {
    let RawObject { metadata } = serde_json::from_slice(raw)?;
    let owner = |owner: RawOwner<'_>| Owner {
        api_version: words.word(&owner.api_version),
        kind: words.word(&owner.kind),
        name: words.word(&owner.name),
        uid: words.word(&owner.uid),
        controller: owner.controller,
        block_owner_deletion: owner.block_owner_deletion,
    };
    let finalizers = metadata.finalizers.unwrap_or_default();
    let labels = metadata.labels.unwrap_or_default();
    Ok(Head {
        key: Key::new(
            words.word(metadata.namespace.as_deref().unwrap_or("")),
            Arc::from(&*metadata.name),
        ),
        uid: Arc::from(metadata.uid.as_deref().unwrap_or("")),
        version: metadata
            .resource_version
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        deleting: metadata.deletion_timestamp.is_some(),
        finalizers: finalizers.iter().map(|text| words.word(text)).collect(),
        labels: labels
            .iter()
            .map(|(name, value)| (words.word(name), words.word(value)))
            .collect(),
        owners: metadata
            .owner_references
            .into_iter()
            .flatten()
            .map(owner)
            .collect(),
    })
}

/// The string at a path of fields, such as `/spec/nodeName`.
pub(crate) fn field(raw: &[u8], pointer: &str) -> Option<String> {
    let mut at: &RawValue = serde_json::from_slice(raw).ok()?;
    for name in pointer.strip_prefix('/')?.split('/') {
        let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(at.get()).ok()?;
        at = fields.remove(name)?;
    }
    serde_json::from_str(at.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_the_metadata_says() {
        let raw = json!({
            "kind": "Pod", "metadata": {
                "name": "x", "namespace": "a", "uid": "1", "resourceVersion": "7", "labels": {"b": "2", "a": "\u{1}"},
                "finalizers": ["f"], "deletionTimestamp": "t", "managedFields": [{"fieldsV1": {}}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "2", "controller": true}],
            }, "spec": {"nodeName": "here"},
        })
        .to_string();
        let words = Words::default();
        let head = read(raw.as_bytes(), &words).unwrap();
        assert_eq!(head.key, Key::new("a", "x"));
        assert_eq!((&*head.uid, head.version, head.deleting), ("1", 7, true));
        assert_eq!(head.label("a"), Some("\u{1}"));
        assert_eq!((head.label("b"), head.label("c")), (Some("2"), None));
        assert!(head.controller().unwrap().is("apps", "ReplicaSet"));
        assert_eq!(
            field(raw.as_bytes(), "/spec/nodeName").as_deref(),
            Some("here")
        );
        assert_eq!(field(raw.as_bytes(), "/spec/other"), None);
        let again = read(raw.as_bytes(), &words).unwrap();
        assert!(Arc::ptr_eq(&head.labels[0].0, &again.labels[0].0));
        drop((head, again));
        words.sweep();
        assert!(words.words.lock().is_empty());
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for raw in ["{}", "{\"metadata\":{\"name\":5}}", "[]", ""] {
            assert!(read(raw.as_bytes(), &Words::default()).is_err(), "{raw}");
        }
    }
}
