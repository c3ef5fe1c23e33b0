//! The state behind a cache: objects by key, the rule which version wins, and the sink that a feed fills.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::dynamic::DynamicObject;
use super::head::Words;
use super::index::{Index, Indexes};
use super::selector::Selector;
use super::{Change, Observer, Synced};
use crate::feed::Sink;
use crate::object::{Key, Object};

/// Uids of objects seen to go, so that a late answer to an older write does not bring them back. An answer is late by
/// milliseconds; this many deletions do not happen in between.
const GONE_MAX: usize = 4096;

type Shared = Arc<DynamicObject>;

struct State {
    objects: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Shared>>,
    count: usize,
    indexes: Indexes,
    gone: HashSet<Arc<str>>,
    gone_order: VecDeque<Arc<str>>,
    /// Keys mentioned by the listing under way.
    listing: Option<HashSet<Key>>,
}

/// Everything known about one kind.
pub(crate) struct Store {
    words: Arc<Words>,
    state: RwLock<State>,
    /// In order of registration. The lock is what orders changes.
    observers: Mutex<Vec<Observer>>,
    synced: watch::Sender<bool>,
}

/// What the objects of one kind hold in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindMemory {
    /// Path of the collection.
    pub path: String,
    /// How many objects.
    pub objects: usize,
    /// Bytes of JSON; over our own API server in this process they are the store's.
    pub raw: usize,
    /// Bytes of heads.
    pub heads: usize,
    /// How many objects have a typed copy at present.
    pub typed: usize,
    /// Bytes of JSON of those; a typed copy is some times as large.
    pub typed_raw: usize,
}

impl Store {
    pub(crate) fn new(indexes: &[Index], plural: &str, words: Arc<Words>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            count: 0,
            indexes: Indexes::new(indexes, plural),
            gone: HashSet::new(),
            gone_order: VecDeque::new(),
            listing: None,
        };
        Self {
            words,
            state: RwLock::new(state),
            observers: Mutex::default(),
            synced: watch::Sender::new(false),
        }
    }

    pub(crate) fn synced(&self) -> Synced {
        self.synced.subscribe()
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Shared> {
        self.state.read().get(namespace, name).cloned()
    }

    pub(crate) fn list(&self, namespace: &str) -> Vec<Shared> {
        let state = self.state.read();
        let all = state.objects.get(namespace).into_iter().flatten();
        all.map(|(_, object)| Arc::clone(object)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Shared> {
        self.state.read().all().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().count
    }

    pub(crate) fn select(&self, namespace: &str, selector: &Selector) -> Vec<Shared> {
        let matches = |object: &&Shared| selector.matches_head(object.head());
        let state = self.state.read();
        for (label, value) in selector.pairs() {
            if let Some(keys) = state.indexes.labelled(label, value) {
                let keys = keys.iter().filter(|key| &*key.namespace == namespace);
                return keys
                    .filter_map(|key| state.get(namespace, &key.name))
                    .filter(matches)
                    .cloned()
                    .collect();
            }
        }
        let all = state.objects.get(namespace).into_iter().flatten();
        all.map(|(_, object)| object)
            .filter(matches)
            .cloned()
            .collect()
    }

    pub(crate) fn by_owner(&self, uid: &str) -> Vec<Shared> {
        let state = self.state.read();
        let keys = state.indexes.owned_by(uid).iter();
        keys.filter_map(|key| state.get(&key.namespace, &key.name))
            .cloned()
            .collect()
    }

    /// The objects with that value of an index; all are searched for nothing when there is no such index.
    pub(crate) fn by(&self, index: Index, value: &str) -> Vec<Shared> {
        let state = self.state.read();
        let keys = state.indexes.with_value(index, value).unwrap_or_default();
        keys.iter()
            .filter_map(|key| state.get(&key.namespace, &key.name))
            .cloned()
            .collect()
    }

    /// Registers an observer and tells it about everything that is there.
    pub(super) fn observe(&self, observer: Observer) {
        let mut observers = self.observers.lock();
        for new in self.all() {
            observer(&Change::Applied { old: None, new });
        }
        observers.push(observer);
    }

    /// Registers an observer of what comes.
    pub(super) fn observe_from_now(&self, observer: Observer) {
        self.observers.lock().push(observer);
    }

    /// Takes the answer to a write if it is newer than what is known. Gives the newest state known.
    pub(crate) fn absorb<K: Object>(
        &self,
        raw: &Bytes,
        object: &Arc<K>,
        only_known: bool,
    ) -> Result<Arc<K>, serde_json::Error> {
        let read = DynamicObject::read(raw.clone(), &self.words)?.with_typed(object);
        let newest = self.put(Arc::new(read), only_known);
        Ok(newest.typed::<K>().unwrap_or_else(|| Arc::clone(object)))
    }

    /// The same without a typed copy.
    pub(crate) fn absorb_untyped(&self, raw: &Bytes) -> Result<(), serde_json::Error> {
        let read = DynamicObject::read(raw.clone(), &self.words)?;
        self.put(Arc::new(read), false);
        Ok(())
    }

    /// Takes an object if it is newer than what is known, and tells the observers. Gives the newest state known.
    pub(super) fn put(&self, object: Shared, only_known: bool) -> Shared {
        let mut observers = self.observers.lock();
        let (changes, newest) = self.state.write().put(object, only_known);
        for change in &changes {
            tell(&mut observers, change);
        }
        newest
    }

    /// Forgets an object that is known to be gone.
    pub(crate) fn remove(&self, key: &Key, uid: &str, version: u64) {
        let mut observers = self.observers.lock();
        let removed = self.state.write().remove(key, uid, version);
        if let Some(last) = removed {
            tell(&mut observers, &Change::Deleted(last));
        }
    }

    /// Forgets everything: the kind is no longer served.
    pub(crate) fn clear(&self) {
        for object in self.all() {
            let head = object.head();
            self.remove(&head.key, &head.uid, head.version);
        }
    }

    /// Drops typed copies that nobody read since the last time. Gives the bytes of JSON that they stood for.
    pub(crate) fn sweep(&self) -> usize {
        self.all().iter().map(|object| object.sweep()).sum()
    }

    pub(crate) fn memory(&self, path: &str) -> KindMemory {
        let mut out = KindMemory {
            path: path.to_owned(),
            ..KindMemory::default()
        };
        for object in self.state.read().all() {
            out.objects += 1;
            out.raw += object.raw().len();
            out.heads += size_of::<DynamicObject>() + object.head().bytes();
            if object.has_typed() {
                out.typed += 1;
                out.typed_raw += object.raw().len();
            }
        }
        out
    }
}

/// Tells everybody; those that answer `false` are forgotten.
fn tell(observers: &mut Vec<Observer>, change: &Change<DynamicObject>) {
    observers.retain(|observer| observer(change));
}

impl State {
    fn get(&self, namespace: &str, name: &str) -> Option<&Shared> {
        self.objects.get(namespace)?.get(name)
    }

    fn all(&self) -> impl Iterator<Item = &Shared> {
        self.objects.values().flatten().map(|(_, object)| object)
    }

    fn put(&mut self, object: Shared, only_known: bool) -> (Vec<Change<DynamicObject>>, Shared) {
        let head = object.head();
        if let Some(listing) = &mut self.listing {
            listing.insert(head.key.clone());
        }
        if !head.uid.is_empty() && self.gone.contains(&head.uid) {
            return (Vec::new(), object);
        }
        let mut changes = Vec::new();
        let known = self.get(&head.key.namespace, &head.key.name).cloned();
        let old = match &known {
            None if only_known => return (changes, object),
            None => None,
            Some(known) if known.head().uid == head.uid => {
                if head.version != 0 && head.version <= known.head().version {
                    return (changes, Arc::clone(known));
                }
                Some(Arc::clone(known))
            }
            Some(known) if head.version != 0 && head.version < known.head().version => {
                return (changes, object);
            }
            // Another object of the same name: the old one was deleted in between.
            Some(known) => {
                changes.push(Change::Deleted(Arc::clone(known)));
                None
            }
        };
        match &known {
            Some(before) => self.indexes.remove(before),
            None => self.count += 1,
        }
        self.indexes.add(&object);
        self.objects
            .entry(Arc::clone(&head.key.namespace))
            .or_default()
            .insert(Arc::clone(&head.key.name), Arc::clone(&object));
        changes.push(Change::Applied {
            old,
            new: Arc::clone(&object),
        });
        (changes, object)
    }

    /// Removes the object of that uid; an empty one stands for any.
    fn remove(&mut self, key: &Key, uid: &str, version: u64) -> Option<Shared> {
        if !uid.is_empty() {
            self.bury(uid);
        }
        let all = self.objects.get_mut(&key.namespace)?;
        let known = all.get(&key.name)?.head();
        let same = uid.is_empty() || *known.uid == *uid;
        if !same && version < known.version {
            return None;
        }
        let object = all.remove(&key.name)?;
        if all.is_empty() {
            self.objects.remove(&key.namespace);
        }
        self.count -= 1;
        self.indexes.remove(&object);
        Some(object)
    }

    fn bury(&mut self, uid: &str) {
        let uid: Arc<str> = uid.into();
        if self.gone.insert(Arc::clone(&uid)) {
            self.gone_order.push_back(uid);
        }
        if self.gone_order.len() > GONE_MAX
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// What the listing did not mention although it is older than the listing.
    fn unmentioned(&mut self, listed_at: u64) -> Vec<Shared> {
        let Some(mentioned) = self.listing.take() else {
            return Vec::new();
        };
        let unmentioned = |object: &&Shared| {
            let head = object.head();
            head.version <= listed_at && !mentioned.contains(&head.key)
        };
        self.all().filter(unmentioned).cloned().collect()
    }
}

impl Sink for Store {
    fn begin(&self) {
        self.state.write().listing = Some(HashSet::new());
    }

    fn applied(&self, object: &Bytes) -> Result<(), serde_json::Error> {
        let read = DynamicObject::read(object.clone(), &self.words)?;
        self.put(Arc::new(read), false);
        Ok(())
    }

    fn deleted(&self, object: &Bytes) -> Result<(), serde_json::Error> {
        let head = super::head::read(object, &self.words)?;
        self.remove(&head.key, &head.uid, head.version);
        Ok(())
    }

    fn end(&self, version: u64) {
        let unmentioned = self.state.write().unmentioned(version);
        for object in unmentioned {
            let head = object.head();
            self.remove(&head.key, &head.uid, version);
        }
        self.synced.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
