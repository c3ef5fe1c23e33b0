//! The indexes of a cache: owner uid to objects, value of a label or field to objects.

use std::collections::HashMap;
use std::sync::Arc;

use super::dynamic::DynamicObject;
use super::head;
use crate::object::Key;

/// By what objects are found without searching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// A label, for every kind.
    Label(&'static str),
    /// A string field of one kind.
    Field {
        /// The kind's plural, such as `pods`.
        plural: &'static str,
        /// Where it is, such as `/spec/nodeName`.
        pointer: &'static str,
    },
}

/// Looks objects up by what they say.
pub(super) struct Indexes {
    known: Box<[Index]>,
    by_owner: HashMap<Arc<str>, Vec<Key>>,
    by_value: HashMap<(Index, Arc<str>), Vec<Key>>,
}

impl Indexes {
    /// The indexes that concern the kind `plural`.
    pub(super) fn new(all: &[Index], plural: &str) -> Self {
        let concerns = |index: &&Index| match index {
            Index::Label(_) => true,
            Index::Field { plural: of, .. } => *of == plural,
        };
        Self {
            known: all.iter().filter(concerns).copied().collect(),
            by_owner: HashMap::new(),
            by_value: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, object: &DynamicObject) {
        let head = object.head();
        for owner in &head.owners {
            insert(
                self.by_owner.entry(Arc::clone(&owner.uid)).or_default(),
                &head.key,
            );
        }
        for entry in self.values(object) {
            insert(self.by_value.entry(entry).or_default(), &head.key);
        }
    }

    pub(super) fn remove(&mut self, object: &DynamicObject) {
        let head = object.head();
        for owner in &head.owners {
            if let Some(keys) = self.by_owner.get_mut(&owner.uid) {
                remove(keys, &head.key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
        for entry in self.values(object) {
            if let Some(keys) = self.by_value.get_mut(&entry) {
                remove(keys, &head.key);
                if keys.is_empty() {
                    self.by_value.remove(&entry);
                }
            }
        }
    }

    pub(super) fn owned_by(&self, uid: &str) -> &[Key] {
        self.by_owner.get(uid).map_or(&[], Vec::as_slice)
    }

    /// The keys with that value, or `None` when there is no such index.
    pub(super) fn with_value(&self, index: Index, value: &str) -> Option<&[Key]> {
        if !self.known.contains(&index) {
            return None;
        }
        let keys = self.by_value.get(&(index, Arc::from(value)));
        Some(keys.map_or(&[], Vec::as_slice))
    }

    /// The keys with that label, or `None` when the label is not indexed.
    pub(super) fn labelled(&self, label: &str, value: &str) -> Option<&[Key]> {
        let index = self
            .known
            .iter()
            .find(|index| matches!(index, Index::Label(known) if *known == label))?;
        self.with_value(*index, value)
    }

    fn values(&self, object: &DynamicObject) -> Vec<(Index, Arc<str>)> {
        let value = |index: &Index| match index {
            Index::Label(label) => {
                let labels = &object.head().labels;
                let found = labels.iter().find(|(name, _)| **name == **label)?;
                Some((*index, Arc::clone(&found.1)))
            }
            Index::Field { pointer, .. } => {
                Some((*index, Arc::from(head::field(object.raw(), pointer)?)))
            }
        };
        self.known.iter().filter_map(value).collect()
    }
}

fn insert(keys: &mut Vec<Key>, key: &Key) {
    if let Err(at) = keys.binary_search(key) {
        keys.insert(at, key.clone());
    }
}

fn remove(keys: &mut Vec<Key>, key: &Key) {
    if let Ok(at) = keys.binary_search(key) {
        keys.remove(at);
    }
}
