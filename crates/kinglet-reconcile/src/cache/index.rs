//! The indexes of a cache: owner uid to objects, label pair to objects.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::Key;

/// Looks objects up by what their metadata says.
#[derive(Default)]
pub(super) struct Indexes {
    labels: Arc<[&'static str]>,
    by_owner: HashMap<Box<str>, BTreeSet<Key>>,
    by_label: HashMap<(&'static str, Box<str>), BTreeSet<Key>>,
}

impl Indexes {
    pub(super) fn new(labels: Arc<[&'static str]>) -> Self {
        Self {
            labels,
            by_owner: HashMap::new(),
            by_label: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, key: &Key, meta: &ObjectMeta) {
        for owner in meta.owner_references.iter().flatten() {
            self.by_owner
                .entry(owner.uid.as_str().into())
                .or_default()
                .insert(key.clone());
        }
        for (label, value) in self.pairs(meta) {
            self.by_label
                .entry((label, value.into()))
                .or_default()
                .insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &Key, meta: &ObjectMeta) {
        for owner in meta.owner_references.iter().flatten() {
            if let Some(keys) = self.by_owner.get_mut(owner.uid.as_str()) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(owner.uid.as_str());
                }
            }
        }
        for (label, value) in self.pairs(meta) {
            let pair = (label, Box::from(value));
            if let Some(keys) = self.by_label.get_mut(&pair) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_label.remove(&pair);
                }
            }
        }
    }

    pub(super) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    /// The keys with that label, or `None` when the label is not indexed.
    pub(super) fn labelled(&self, label: &str, value: &str) -> Option<Vec<Key>> {
        let label = *self.labels.iter().find(|indexed| **indexed == label)?;
        Some(
            self.by_label
                .get(&(label, Box::from(value)))
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        )
    }

    fn pairs<'a>(&self, meta: &'a ObjectMeta) -> Vec<(&'static str, &'a str)> {
        let Some(labels) = &meta.labels else {
            return Vec::new();
        };
        self.labels
            .iter()
            .filter_map(|label| labels.get(*label).map(|value| (*label, value.as_str())))
            .collect()
    }
}
