//! The state behind a cache: objects by key, the rule which version wins, and the sink that a feed fills.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::index::Indexes;
use super::selector::Selector;
use super::{Change, Observer, Observers, Synced};
use crate::feed::Sink;
use crate::object::{Key, Object, key_of, version_of};

/// Uids of objects seen to go, so that a late answer to an older write does not bring them back. An answer is late by
/// milliseconds; this many deletions do not happen in between.
const GONE_MAX: usize = 4096;

struct Entry<K> {
    object: Arc<K>,
    version: u64,
}

struct State<K> {
    objects: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Entry<K>>>,
    count: usize,
    indexes: Indexes,
    gone: HashSet<Box<str>>,
    gone_order: VecDeque<Box<str>>,
    /// Keys mentioned by the listing under way.
    listing: Option<HashSet<Key>>,
}

/// Everything known about one kind.
pub(crate) struct Store<K> {
    state: RwLock<State<K>>,
    observers: Observers<K>,
    synced: watch::Sender<bool>,
}

impl<K: Object> Store<K> {
    pub(crate) fn new(indexed: Arc<[&'static str]>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            count: 0,
            indexes: Indexes::new(indexed),
            gone: HashSet::new(),
            gone_order: VecDeque::new(),
            listing: None,
        };
        Self {
            state: RwLock::new(state),
            observers: Observers::default(),
            synced: watch::Sender::new(false),
        }
    }

    pub(crate) fn synced(&self) -> Synced {
        self.synced.subscribe()
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.state.read().get(namespace, name)
    }

    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .objects
            .get(namespace)
            .into_iter()
            .flatten()
            .map(|(_, entry)| Arc::clone(&entry.object))
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .objects
            .values()
            .flatten()
            .map(|(_, entry)| Arc::clone(&entry.object))
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().count
    }

    pub(crate) fn select(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        let matches = |object: &Arc<K>| selector.matches(object.meta().labels.as_ref());
        let state = self.state.read();
        for (label, value) in selector.pairs() {
            if let Some(keys) = state.indexes.labelled(label, value) {
                let keys = keys.iter().filter(|key| &*key.namespace == namespace);
                return keys
                    .filter_map(|key| state.get(namespace, &key.name))
                    .filter(matches)
                    .collect();
            }
        }
        let all = state.objects.get(namespace).into_iter().flatten();
        all.map(|(_, entry)| &entry.object)
            .filter(|object| matches(object))
            .cloned()
            .collect()
    }

    pub(crate) fn by_owner(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .indexes
            .owned_by(uid)
            .filter_map(|key| state.get(&key.namespace, &key.name))
            .collect()
    }

    /// Registers an observer and tells it about everything that is there.
    pub(super) fn observe(&self, observer: Observer<K>) {
        let mut observers = self.observers.0.lock();
        for object in self.all() {
            observer(&Change::Applied {
                old: None,
                new: object,
            });
        }
        observers.push(observer);
    }

    /// Registers an observer of what comes.
    pub(super) fn observe_from_now(&self, observer: Observer<K>) {
        self.observers.0.lock().push(observer);
    }

    /// Takes an object if it is newer than what is known, and tells the observers. Gives the newest state known.
    pub(crate) fn put(&self, mut object: K, only_known: bool) -> Arc<K> {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let mut observers = self.observers.0.lock();
        let (changes, newest) = self.state.write().put(&object, only_known);
        for change in &changes {
            Observers::tell(&mut observers, change);
        }
        newest
    }

    /// Forgets an object that is known to be gone.
    pub(crate) fn remove(&self, key: &Key, uid: Option<&str>, version: u64) {
        let mut observers = self.observers.0.lock();
        let removed = self.state.write().remove(key, uid, version);
        if let Some(last) = removed {
            Observers::tell(&mut observers, &Change::Deleted(last));
        }
    }
}

impl<K: Object> State<K> {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.objects
            .get(namespace)?
            .get(name)
            .map(|entry| Arc::clone(&entry.object))
    }

    fn put(&mut self, object: &Arc<K>, only_known: bool) -> (Vec<Change<K>>, Arc<K>) {
        let key = key_of(&**object);
        let version = version_of(object.meta());
        let uid = object.meta().uid.as_deref();
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        if uid.is_some_and(|uid| self.gone.contains(uid)) {
            return (Vec::new(), Arc::clone(object));
        }
        let mut changes = Vec::new();
        let known = self
            .objects
            .get(&key.namespace)
            .and_then(|all| all.get(&key.name));
        let old = match known {
            None if only_known => return (changes, Arc::clone(object)),
            None => None,
            Some(entry) if entry.object.meta().uid.as_deref() == uid => {
                if version != 0 && version <= entry.version {
                    return (changes, Arc::clone(&entry.object));
                }
                Some(Arc::clone(&entry.object))
            }
            Some(entry) if version != 0 && version < entry.version => {
                return (changes, Arc::clone(object));
            }
            // Another object of the same name: the old one was deleted in between.
            Some(entry) => {
                changes.push(Change::Deleted(Arc::clone(&entry.object)));
                None
            }
        };
        let replaced = old
            .clone()
            .or_else(|| changes.first().and_then(Change::object).cloned());
        match &replaced {
            Some(before) => self.indexes.remove(&key, before.meta()),
            None => self.count += 1,
        }
        self.indexes.add(&key, object.meta());
        let entry = Entry {
            object: Arc::clone(object),
            version,
        };
        self.objects
            .entry(Arc::clone(&key.namespace))
            .or_default()
            .insert(key.name, entry);
        changes.push(Change::Applied {
            old,
            new: Arc::clone(object),
        });
        (changes, Arc::clone(object))
    }

    fn remove(&mut self, key: &Key, uid: Option<&str>, version: u64) -> Option<Arc<K>> {
        if let Some(uid) = uid {
            self.bury(uid);
        }
        let all = self.objects.get_mut(&key.namespace)?;
        let entry = all.get(&key.name)?;
        let same = uid.is_none() || entry.object.meta().uid.as_deref() == uid;
        if !same && version < entry.version {
            return None;
        }
        let entry = all.remove(&key.name)?;
        if all.is_empty() {
            self.objects.remove(&key.namespace);
        }
        self.count -= 1;
        self.indexes.remove(key, entry.object.meta());
        Some(entry.object)
    }

    fn bury(&mut self, uid: &str) {
        if self.gone.insert(uid.into()) {
            self.gone_order.push_back(uid.into());
        }
        if self.gone_order.len() > GONE_MAX
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// What the listing did not mention although it is older than the listing.
    fn unmentioned(&mut self, listed_at: u64) -> Vec<(Key, Option<String>, u64)> {
        let Some(mentioned) = self.listing.take() else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for entry in self.objects.values().flatten().map(|(_, entry)| entry) {
            let key = key_of(&*entry.object);
            if entry.version <= listed_at && !mentioned.contains(&key) {
                out.push((key, entry.object.meta().uid.clone(), listed_at));
            }
        }
        out
    }
}

impl<K: Object> Sink for Store<K> {
    fn begin(&self) {
        self.state.write().listing = Some(HashSet::new());
    }

    fn applied(&self, object: &str) -> Result<(), serde_json::Error> {
        self.put(serde_json::from_str(object)?, false);
        Ok(())
    }

    fn deleted(&self, object: &str) -> Result<(), serde_json::Error> {
        let object: K = serde_json::from_str(object)?;
        self.remove(
            &key_of(&object),
            object.meta().uid.as_deref(),
            version_of(object.meta()),
        );
        Ok(())
    }

    fn end(&self, version: u64) {
        let unmentioned = self.state.write().unmentioned(version);
        for (key, uid, version) in unmentioned {
            self.remove(&key, uid.as_deref(), version);
        }
        self.synced.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::uid_of;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Resource as _;

    fn map(name: &str, uid: &str, version: u64) -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "a", "name": name, "uid": uid, "resourceVersion": version.to_string(), "labels": {"app": name}}
        }))
        .unwrap()
    }

    fn store() -> Store<ConfigMap> {
        Store::new(Arc::from(["app"]))
    }

    fn version(store: &Store<ConfigMap>, name: &str) -> u64 {
        store
            .get("a", name)
            .map_or(0, |object| version_of(object.meta()))
    }

    #[test]
    fn an_older_version_never_wins() {
        let store = store();
        store.put(map("x", "1", 7), false);
        store.put(map("x", "1", 5), false);
        assert_eq!(version(&store, "x"), 7);
    }

    #[test]
    fn what_is_gone_does_not_come_back_under_its_uid() {
        let store = store();
        store.put(map("x", "1", 7), false);
        store.remove(&Key::new("a", "x"), Some("1"), 8);
        store.put(map("x", "1", 9), false);
        assert!(store.get("a", "x").is_none());
        store.put(map("x", "2", 10), false);
        assert_eq!(uid_of(&*store.get("a", "x").unwrap()), "2");
    }

    #[test]
    fn a_late_deletion_of_the_former_leaves_the_successor() {
        let store = store();
        store.put(map("x", "2", 10), false);
        store.remove(&Key::new("a", "x"), Some("1"), 8);
        assert_eq!(version(&store, "x"), 10);
    }

    #[test]
    fn a_listing_sweeps_what_it_does_not_mention_but_not_what_is_newer() {
        let store = store();
        store.put(map("old", "1", 3), false);
        store.put(map("new", "2", 30), false);
        store.begin();
        store.put(map("kept", "3", 4), false);
        Sink::end(&store, 20);
        assert!(store.get("a", "old").is_none());
        assert!(store.get("a", "new").is_some() && store.get("a", "kept").is_some());
    }

    #[test]
    fn selection_uses_labels_indexed_or_not() {
        for indexed in [Arc::from(["app"]), Arc::from([])] {
            let store: Store<ConfigMap> = Store::new(indexed);
            store.put(map("x", "1", 1), false);
            store.put(map("y", "2", 2), false);
            let names: Vec<_> = store
                .select("a", &Selector::from([("app", "y")]))
                .iter()
                .map(|o| o.metadata.name.clone().unwrap())
                .collect();
            assert_eq!(names, ["y"]);
            assert!(
                store
                    .select("b", &Selector::from([("app", "y")]))
                    .is_empty()
            );
        }
    }

    #[test]
    fn observers_see_old_and_new_in_order() {
        let store = store();
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        store.observe(Box::new(move |change| {
            log.lock().push(match change {
                Change::Applied { old, new } => (
                    old.as_ref().map(|o| version_of(o.meta())),
                    version_of(new.meta()),
                ),
                Change::Deleted(last) => (Some(version_of(last.meta())), 0),
                Change::Resync => unreachable!(),
            });
            true
        }));
        store.put(map("x", "1", 1), false);
        store.put(map("x", "1", 2), false);
        store.put(map("x", "9", 4), false);
        store.remove(&Key::new("a", "x"), Some("9"), 5);
        assert_eq!(
            *seen.lock(),
            [
                (None, 1),
                (Some(1), 2),
                (Some(2), 0),
                (None, 4),
                (Some(4), 0)
            ]
        );
    }
}
