//! The shared, typed view of one kind: what is there, indexed, and who wants to know when it changes.
//!
//! Guarantees: an object never goes back to an older version, whichever of the watch and our own writes brings it
//! first; an object that is gone never comes back under the same uid; observers see changes in the order in which the
//! cache took them, one at a time, before the call that brought the change returns.
//! Price: an observer runs on the path of every change and must be quick; it may read caches but not wait.

mod index;
mod selector;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::object::{Key, Object};

pub use selector::Selector;
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

/// A cheap handle to the cache of one kind. All handles of one process share one watch.
pub struct Cache<K: Object> {
    store: Arc<Store<K>>,
}

impl<K: Object> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
        }
    }
}

impl<K: Object> Cache<K> {
    pub(crate) fn new(store: Arc<Store<K>>) -> Self {
        Self { store }
    }

    /// The object of that name; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(namespace, name)
    }

    /// The object of that key.
    pub fn find(&self, key: &Key) -> Option<Arc<K>> {
        self.store.get(&key.namespace, &key.name)
    }

    /// Every object of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.store.list(namespace)
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.all()
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
    /// Kubernetes `LabelSelector`. Labels named in [`crate::Caches::with_indexed_labels`] are looked up, not searched.
    pub fn select(&self, namespace: &str, selector: impl Into<Selector>) -> Vec<Arc<K>> {
        self.store.select(namespace, &selector.into())
    }

    /// The objects with an owner reference to that uid, by namespace and name.
    pub fn by_owner(&self, uid: &str) -> Vec<Arc<K>> {
        self.store.by_owner(uid)
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

    /// Calls `observer` with every change, at once and in order; first with each object that is there already.
    ///
    /// It runs on the path of the change: be quick, never wait, never write through a [`crate::Context`] inside.
    pub fn observe(&self, observer: impl Fn(&Change<K>) + Send + Sync + 'static) {
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
            match sender.try_send(change.clone()) {
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

/// Tasks of sinks that were registered but are erased here.
pub(crate) type Observer<K> = Box<dyn Fn(&Change<K>) -> bool + Send + Sync>;

/// Observers of one store, in order of registration.
pub(crate) struct Observers<K>(Mutex<Vec<Observer<K>>>);

impl<K> Default for Observers<K> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<K> Observers<K> {
    /// Tells everybody; those that answer `false` are forgotten. The lock is what orders changes.
    fn tell(observers: &mut Vec<Observer<K>>, change: &Change<K>) {
        observers.retain(|observer| observer(change));
    }
}
