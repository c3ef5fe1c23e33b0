//! Every cache of the process: one watch per kind and scope, started when first asked for.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use parking_lot::Mutex;

use crate::cache::{Cache, Store, Synced};
use crate::feed::{Feed, Sink};
use crate::object::{Key, Object};

/// Narrows a watch, for a component that needs a few objects of a large cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Only this namespace; empty for all.
    pub namespace: String,
    /// Label selector, such as `serving.knative.dev/revision`; empty for all.
    pub labels: String,
    /// Field selector, such as `spec.nodeName=kinglet`; empty for all.
    pub fields: String,
}

struct Slot {
    kind: String,
    store: Arc<dyn Any + Send + Sync>,
    synced: Synced,
    narrow: bool,
}

struct Inner {
    client: kube::Client,
    tasks: Tasks,
    clock: Clock,
    indexed: Arc<[&'static str]>,
    slots: Mutex<HashMap<TypeId, Vec<(Scope, Slot)>>>,
}

/// The caches of one process. Cheap to clone.
#[derive(Clone)]
pub struct Caches(Arc<Inner>);

impl Caches {
    /// Caches that watch through `client`; their tasks belong to `tasks`.
    pub fn new(client: kube::Client, tasks: Tasks, clock: Clock) -> Self {
        Self::with_indexed_labels(client, tasks, clock, &[])
    }

    /// The same, with labels by which [`Cache::select`] finds objects without searching.
    pub fn with_indexed_labels(
        client: kube::Client,
        tasks: Tasks,
        clock: Clock,
        labels: &[&'static str],
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            tasks,
            clock,
            indexed: labels.into(),
            slots: Mutex::default(),
        }))
    }

    /// The cache of a kind; the first call starts its watch.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        self.scoped(Scope::default())
    }

    /// The cache of a part of a kind, apart from the cache of the whole.
    pub fn scoped<K: Object>(&self, scope: Scope) -> Cache<K> {
        let inner = &self.0;
        let mut slots = inner.slots.lock();
        let of_kind = slots.entry(TypeId::of::<K>()).or_default();
        if let Some(store) = of_kind
            .iter()
            .find(|(known, _)| *known == scope)
            .and_then(|(_, slot)| typed::<K>(slot))
        {
            return Cache::new(store);
        }
        let store = Arc::new(Store::<K>::new(Arc::clone(&inner.indexed)));
        let namespace = (!scope.namespace.is_empty()).then_some(scope.namespace.as_str());
        let feed = Feed {
            path: K::url_path(&(), namespace),
            labels: scope.labels.clone(),
            fields: scope.fields.clone(),
            metadata_only: false,
        };
        let sink: Arc<dyn Sink> = store.clone();
        inner
            .tasks
            .component_cancellable("cache", feed.run(inner.client.clone(), sink));
        let slot = Slot {
            kind: K::kind(&()).into_owned(),
            store: store.clone(),
            synced: store.synced(),
            narrow: scope != Scope::default(),
        };
        of_kind.push((scope, slot));
        Cache::new(store)
    }

    /// Waits until every cache that was asked for so far is complete.
    pub async fn wait_synced(&self) {
        let waiting: Vec<Synced> = self
            .0
            .slots
            .lock()
            .values()
            .flatten()
            .map(|(_, slot)| slot.synced.clone())
            .collect();
        for mut synced in waiting {
            // The store that sends lives as long as the slot.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }

    /// The kinds of the caches that are not complete yet.
    pub fn incomplete(&self) -> Vec<String> {
        let slots = self.0.slots.lock();
        let waiting = slots.values().flatten().map(|(_, slot)| slot);
        let mut kinds: Vec<String> = waiting
            .filter(|slot| !*slot.synced.borrow())
            .map(|slot| slot.kind.clone())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The client behind the caches.
    pub fn client(&self) -> &kube::Client {
        &self.0.client
    }

    /// The clock of the process.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The tasks that the caches belong to.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Takes the answer to one of our writes, so that the next reconcile reads it. Gives the newest state known.
    pub(crate) fn absorb<K: Object>(&self, object: K) -> Arc<K> {
        let stores = self.stores::<K>();
        let mut newest = None;
        for (store, narrow) in stores {
            let taken = store.put(object.clone(), narrow);
            if !narrow {
                newest = Some(taken);
            }
        }
        newest.unwrap_or_else(|| Arc::new(object))
    }

    /// Notes that an object is gone.
    pub(crate) fn forget<K: Object>(&self, key: &Key, uid: &str) {
        for (store, _) in self.stores::<K>() {
            store.remove(key, Some(uid), 0);
        }
    }

    fn stores<K: Object>(&self) -> Vec<(Arc<Store<K>>, bool)> {
        let slots = self.0.slots.lock();
        let of_kind = slots.get(&TypeId::of::<K>()).into_iter().flatten();
        of_kind
            .filter_map(|(_, slot)| Some((typed::<K>(slot)?, slot.narrow)))
            .collect()
    }
}

fn typed<K: Object>(slot: &Slot) -> Option<Arc<Store<K>>> {
    Arc::clone(&slot.store).downcast().ok()
}
