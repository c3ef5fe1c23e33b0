//! The shared view of one kind, typed or not: what is there, indexed, and who wants to know when it changes.
//!
//! Guarantees: an object never goes back to an older version, whichever of the watch and our own writes brings it
//! first; an object that is gone never comes back under the same uid; observers see changes in the order in which the
//! cache took them, one at a time, before the call that brought the change returns.
//! What is kept of an object is its JSON and its head; a typed copy is made when somebody reads it, and dropped when
//! nobody did for a while (docs/decisions/0020).
//! Price: an observer runs on the path of every change and must be quick; it may read caches but not wait.

mod dynamic;
mod head;
mod index;
mod selector;
mod store;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};

use crate::kinds::ResourceKind;
use crate::object::{Key, Object};

pub use dynamic::DynamicObject;
pub(crate) use dynamic::parse;
pub(crate) use head::Words;
pub use head::{Head, Owner};
pub use index::Index;
pub use selector::Selector;
pub use store::KindMemory;
pub(crate) use store::Store;

/// Changes that wait for one [`Changes`] reader; past it the reader is told to look at everything again.
const CHANGES_MAX: usize = 1024;

/// What happened to one object.
#[derive(Debug)]
pub enum Change<K> {
    /// It is there now, or different.
    Applied {
        /// The state before, if it was known.
        old: Option<Arc<K>>,
        /// The state now.
        new: Arc<K>,
    },
    /// It is gone; the last state known.
    Deleted(Arc<K>),
    /// Only for [`Changes`]: look at the whole cache again (always the first item, and after falling behind).
    Resync,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { old, new } => Self::Applied {
                old: old.clone(),
                new: new.clone(),
            },
            Self::Deleted(last) => Self::Deleted(last.clone()),
            Self::Resync => Self::Resync,
        }
    }
}

impl<K> Change<K> {
    /// The object the change is about, in its latest known state.
    pub fn object(&self) -> Option<&Arc<K>> {
        match self {
            Self::Applied { new, .. } => Some(new),
            Self::Deleted(last) => Some(last),
            Self::Resync => None,
        }
    }

    /// Every state mentioned: the new one first.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        let (first, second) = match self {
            Self::Applied { old, new } => (Some(new), old.as_ref()),
            Self::Deleted(last) => (Some(last), None),
            Self::Resync => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl Change<DynamicObject> {
    /// The same with typed copies. What does not fit the type counts as not there.
    fn typed<K: Object>(&self) -> Option<Change<K>> {
        match self {
            Self::Applied { old, new } => {
                let old = old.as_ref().and_then(|object| object.typed());
                match new.typed() {
                    Some(new) => Some(Change::Applied { old, new }),
                    None => old.map(Change::Deleted),
                }
            }
            Self::Deleted(last) => Some(Change::Deleted(last.typed()?)),
            Self::Resync => Some(Change::Resync),
        }
    }
}

/// A cheap handle to the cache of one kind. All handles of one process share one watch and one copy of each object.
pub struct Cache<K: Object> {
    store: Arc<Store>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.store))
    }
}

impl<K: Object> Cache<K> {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            kind: PhantomData,
        }
    }

    /// The object of that name; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(namespace, name)?.typed()
    }

    /// The object of that key.
    pub fn find(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// Every object of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        typed(&self.store.list(namespace))
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        typed(&self.store.all())
    }

    /// The keys of every object.
    pub fn keys(&self) -> Vec<Key> {
        let all = self.store.all();
        all.iter().map(|object| object.head().key.clone()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.store.len() == 0
    }

    /// The objects of a namespace whose labels match, by name. `selector` is a list of label pairs, a label map, or a
    /// Kubernetes `LabelSelector`. Labels named in [`crate::Caches::with_indexes`] are looked up, not searched.
    pub fn select(&self, namespace: &str, selector: impl Into<Selector>) -> Vec<Arc<K>> {
        typed(&self.store.select(namespace, &selector.into()))
    }

    /// The objects with an owner reference to that uid, by namespace and name.
    pub fn by_owner(&self, uid: &str) -> Vec<Arc<K>> {
        typed(&self.store.by_owner(uid))
    }

    /// The objects with that value of an index named in [`crate::Caches::with_indexes`], by namespace and name.
    pub fn by(&self, index: Index, value: &str) -> Vec<Arc<K>> {
        typed(&self.store.by(index, value))
    }

    /// Waits until the first listing is complete.
    pub async fn wait_synced(&self) {
        let mut synced = self.store.synced();
        // The sender lives in the store that we hold.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first listing is complete.
    pub fn is_synced(&self) -> bool {
        *self.store.synced().borrow()
    }

    /// Whether the first listing is complete, as it becomes so.
    pub(crate) fn synced(&self) -> Synced {
        self.store.synced()
    }

    /// Calls `observer` with every change, at once and in order; first with each object that is there already.
    ///
    /// It runs on the path of the change: be quick, never wait, never write through a [`crate::Context`] inside.
    pub fn observe(&self, observer: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.store.observe(Box::new(move |change| {
            if let Some(change) = change.typed() {
                observer(&change);
            }
            true
        }));
    }

    /// The same for who needs the heads only: no typed copy is made.
    pub fn observe_heads(&self, observer: impl Fn(&Change<DynamicObject>) + Send + Sync + 'static) {
        self.store.observe(Box::new(move |change| {
            observer(change);
            true
        }));
    }

    /// The changes as a bounded queue for a task of its own. The first item is [`Change::Resync`].
    pub fn subscribe(&self) -> Changes<K> {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        let lagged = Arc::new(AtomicBool::new(true));
        let wake = Arc::new(tokio::sync::Notify::new());
        wake.notify_one();
        let (lag, bell) = (Arc::clone(&lagged), Arc::clone(&wake));
        self.store.observe_from_now(Box::new(move |change| {
            let Some(change) = change.typed() else {
                return !sender.is_closed();
            };
            match sender.try_send(change) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    lag.store(true, Ordering::Release);
                    bell.notify_one();
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        }));
        Changes {
            receiver,
            lagged,
            wake,
        }
    }
}

fn typed<K: Object>(objects: &[Arc<DynamicObject>]) -> Vec<Arc<K>> {
    objects.iter().filter_map(|object| object.typed()).collect()
}

/// A cheap handle to the cache of a kind known by group, version and name only. It shares watch and objects with the
/// typed handles of the kind.
#[derive(Clone)]
pub struct DynamicCache {
    store: Arc<Store>,
    kind: Arc<ResourceKind>,
}

impl DynamicCache {
    pub(crate) fn new(store: Arc<Store>, kind: Arc<ResourceKind>) -> Self {
        Self { store, kind }
    }

    /// The kind.
    pub fn kind(&self) -> &Arc<ResourceKind> {
        &self.kind
    }

    /// The object of that name; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        self.store.get(namespace, name)
    }

    /// Every object of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<DynamicObject>> {
        self.store.list(namespace)
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<DynamicObject>> {
        self.store.all()
    }

    /// The objects of a namespace whose labels match; see [`Cache::select`].
    pub fn select(
        &self,
        namespace: &str,
        selector: impl Into<Selector>,
    ) -> Vec<Arc<DynamicObject>> {
        self.store.select(namespace, &selector.into())
    }

    /// The objects with an owner reference to that uid, by namespace and name.
    pub fn by_owner(&self, uid: &str) -> Vec<Arc<DynamicObject>> {
        self.store.by_owner(uid)
    }

    /// The objects with that value of an index; see [`Cache::by`].
    pub fn by(&self, index: Index, value: &str) -> Vec<Arc<DynamicObject>> {
        self.store.by(index, value)
    }

    /// Waits until the first listing is complete.
    pub async fn wait_synced(&self) {
        let mut synced = self.store.synced();
        // The sender lives in the store that we hold.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Calls `observer` with every change, as [`Cache::observe`] does, until it answers `false`.
    pub fn observe(
        &self,
        observer: impl Fn(&Change<DynamicObject>) -> bool + Send + Sync + 'static,
    ) {
        self.store.observe(Box::new(observer));
    }
}

/// A bounded queue of changes; see [`Cache::subscribe`].
pub struct Changes<K> {
    receiver: mpsc::Receiver<Change<K>>,
    lagged: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl<K: Object> Changes<K> {
    /// The next change; cancel-safe. `None` never happens while the process runs.
    pub async fn recv(&mut self) -> Option<Change<K>> {
        loop {
            if self.lagged.swap(false, Ordering::AcqRel) {
                // What waits is older than the cache that the reader will now look at.
                while self.receiver.try_recv().is_ok() {}
                return Some(Change::Resync);
            }
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                change = self.receiver.recv() => return change,
            }
        }
    }
}

/// The kinds of a process that must be complete before anybody decides anything.
pub(crate) type Synced = watch::Receiver<bool>;

/// Told of every change; whoever answers `false` is forgotten.
pub(crate) type Observer = Box<dyn Fn(&Change<DynamicObject>) -> bool + Send + Sync>;
