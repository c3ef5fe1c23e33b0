//! Every cache of the process: one watch per kind and scope, started when first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use bytes::Bytes;

use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;

use crate::cache::{
    Cache, DynamicCache, DynamicObject, Index, KindMemory, Store, Synced, Words, parse,
};
use crate::feed::{Feed, Sink};
use crate::kinds::ResourceKind;
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

/// How long a typed copy that nobody reads is kept, at least; at most twice as long. While there are too many
/// (`TYPED_BYTES_MAX`), [`CROWDED_PAUSE`] instead.
const TYPED_KEPT: Duration = Duration::from_secs(60);
/// Between two sweeps while there are too many: looking at the objects of thousands of Services takes milliseconds.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);

struct Slot {
    scope: Scope,
    kind: String,
    store: Arc<Store>,
    /// Whether somebody reads it typed; else only as long as the kind is there.
    typed: bool,
    feed: Tasks,
}

struct Inner {
    client: kube::Client,
    tasks: Tasks,
    clock: Clock,
    indexes: Box<[Index]>,
    words: Arc<Words>,
    /// By path of the collection.
    slots: Mutex<HashMap<String, Vec<Slot>>>,
    sweeps: Once,
    /// JSON bytes of all typed copies that were dropped because nobody read them.
    dropped: watch::Sender<u64>,
}

/// What an object says about its own kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
}

/// The caches of one process. Cheap to clone.
#[derive(Clone)]
pub struct Caches(Arc<Inner>);

impl Caches {
    /// Caches that watch through `client`; their tasks belong to `tasks`.
    pub fn new(client: kube::Client, tasks: Tasks, clock: Clock) -> Self {
        Self::with_indexes(client, tasks, clock, &[])
    }

    /// The same, with labels by which [`Cache::select`] finds objects without searching.
    pub fn with_indexed_labels(
        client: kube::Client,
        tasks: Tasks,
        clock: Clock,
        labels: &[&'static str],
    ) -> Self {
        let indexes: Vec<Index> = labels.iter().map(|label| Index::Label(label)).collect();
        Self::with_indexes(client, tasks, clock, &indexes)
    }

    /// The same, with labels and fields by which objects are found without searching.
    pub fn with_indexes(
        client: kube::Client,
        tasks: Tasks,
        clock: Clock,
        indexes: &[Index],
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            tasks,
            clock,
            indexes: indexes.into(),
            words: Arc::default(),
            slots: Mutex::default(),
            sweeps: Once::new(),
            dropped: watch::Sender::new(0),
        }))
    }

    /// The cache of a kind; the first call starts its watch.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        self.scoped(&Scope::default())
    }

    /// The cache of a part of a kind, apart from the cache of the whole.
    pub fn scoped<K: Object>(&self, scope: &Scope) -> Cache<K> {
        Cache::new(self.store(
            &K::url_path(&(), None),
            &K::kind(&()),
            &K::plural(&()),
            scope,
            true,
        ))
    }

    /// The cache of a kind that was found by discovery; the first call starts its watch, unless a typed reader did.
    pub fn dynamic(&self, kind: &Arc<ResourceKind>) -> DynamicCache {
        let store = self.store(
            &kind.path(None),
            &kind.kind,
            &kind.plural,
            &Scope::default(),
            false,
        );
        DynamicCache::new(store, Arc::clone(kind))
    }

    /// The object as it was at `version`, if the cache of the whole kind was asked for and has it.
    pub fn peek(&self, kind: &ResourceKind, key: &Key, version: u64) -> Option<Arc<DynamicObject>> {
        let slots = self.0.slots.lock();
        let mut of_kind = slots.get(&kind.path(None)).into_iter().flatten();
        let slot = of_kind.find(|slot| slot.scope == Scope::default())?;
        let found = slot.store.get(&key.namespace, &key.name)?;
        (found.head().version == version).then_some(found)
    }

    /// Ends the watch of a kind that is no longer served, unless it has typed readers; its objects are gone.
    pub fn release(&self, kind: &ResourceKind) {
        let path = kind.path(None);
        let mut slots = self.0.slots.lock();
        let Some(of_kind) = slots.get_mut(&path) else {
            return;
        };
        let ended: Vec<Slot> = of_kind.extract_if(.., |slot| !slot.typed).collect();
        if of_kind.is_empty() {
            slots.remove(&path);
        }
        drop(slots);
        for slot in ended {
            slot.feed.cancel();
            slot.store.clear();
        }
    }

    fn store(
        &self,
        path: &str,
        kind: &str,
        plural: &str,
        scope: &Scope,
        typed: bool,
    ) -> Arc<Store> {
        let inner = &self.0;
        let mut slots = inner.slots.lock();
        let of_kind = slots.entry(path.to_owned()).or_default();
        if let Some(slot) = of_kind.iter_mut().find(|slot| slot.scope == *scope) {
            slot.typed |= typed;
            return Arc::clone(&slot.store);
        }
        let store = Arc::new(Store::new(&inner.indexes, plural, Arc::clone(&inner.words)));
        let feed = Feed {
            path: narrowed(path, plural, &scope.namespace),
            labels: scope.labels.clone(),
            fields: scope.fields.clone(),
            metadata_only: false,
        };
        let sink: Arc<dyn Sink> = store.clone();
        // A group of its own, which ends with the kind.
        let tasks = inner.tasks.child();
        tasks.component_cancellable("cache", feed.run(inner.client.clone(), sink));
        of_kind.push(Slot {
            scope: scope.clone(),
            kind: kind.to_owned(),
            store: Arc::clone(&store),
            typed,
            feed: tasks,
        });
        inner.sweeps.call_once(|| {
            let caches = Arc::downgrade(inner);
            inner
                .tasks
                .component_cancellable("cache-sweeper", sweep(caches));
        });
        store
    }

    /// What the objects of each kind hold in memory.
    pub fn memory(&self) -> Vec<KindMemory> {
        let slots = self.0.slots.lock();
        let mut out: Vec<KindMemory> = slots
            .iter()
            .flat_map(|(path, of_kind)| of_kind.iter().map(|slot| slot.store.memory(path)))
            .collect();
        out.sort_by(|a, b| a.path.cmp(&b.path));
        out
    }

    /// JSON bytes of all typed copies dropped so far because nobody read them: what they took of the heap can be given back.
    pub fn dropped(&self) -> watch::Receiver<u64> {
        self.0.dropped.subscribe()
    }

    /// Waits until every cache that typed readers asked for so far is complete.
    pub async fn wait_synced(&self) {
        let waiting: Vec<Synced> = {
            let slots = self.0.slots.lock();
            let typed = slots.values().flatten().filter(|slot| slot.typed);
            typed.map(|slot| slot.store.synced()).collect()
        };
        for mut synced in waiting {
            // The store that sends lives as long as the slot, which typed readers keep for good.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }

    /// The kinds of the caches with typed readers that are not complete yet.
    pub fn incomplete(&self) -> Vec<String> {
        let slots = self.0.slots.lock();
        let waiting = slots.values().flatten().filter(|slot| slot.typed);
        let mut kinds: Vec<String> = waiting
            .filter(|slot| !*slot.store.synced().borrow())
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
    pub(crate) fn absorb<K: Object>(&self, raw: &Bytes) -> Result<Arc<K>, serde_json::Error> {
        let object = Arc::new(parse::<K>(raw)?);
        let mut newest = None;
        for (store, narrow) in self.stores::<K>() {
            let taken = store.absorb(raw, &object, narrow)?;
            if !narrow {
                newest = Some(taken);
            }
        }
        Ok(newest.unwrap_or(object))
    }

    /// Takes the answer to a write of an object without types into the cache of its kind, if there is one.
    pub(crate) fn absorb_untyped(&self, raw: &Bytes) -> Result<(), serde_json::Error> {
        let Kind { api_version, kind } = serde_json::from_slice(raw)?;
        let root = match api_version.contains('/') {
            true => format!("/apis/{api_version}/"),
            false => format!("/api/{api_version}/"),
        };
        let stores: Vec<Arc<Store>> = {
            let slots = self.0.slots.lock();
            let of_version = slots.iter().filter(|(path, _)| path.starts_with(&root));
            of_version
                .flat_map(|(_, slots)| slots)
                .filter(|slot| slot.kind == kind && slot.scope == Scope::default())
                .map(|slot| Arc::clone(&slot.store))
                .collect()
        };
        stores
            .iter()
            .try_for_each(|store| store.absorb_untyped(raw))
    }

    /// Notes that an object is gone.
    pub(crate) fn forget<K: Object>(&self, key: &Key, uid: &str) {
        for (store, _) in self.stores::<K>() {
            store.remove(key, uid, 0);
        }
    }

    /// The JSON of the object and its version, if a cache has it.
    pub(crate) fn raw<K: Object>(&self, key: &Key) -> Option<(u64, Bytes)> {
        self.stores::<K>().into_iter().find_map(|(store, _)| {
            let object = store.get(&key.namespace, &key.name)?;
            Some((object.head().version, object.raw().clone()))
        })
    }

    fn stores<K: Object>(&self) -> Vec<(Arc<Store>, bool)> {
        let slots = self.0.slots.lock();
        let of_kind = slots.get(&K::url_path(&(), None)).into_iter().flatten();
        of_kind
            .map(|slot| (Arc::clone(&slot.store), slot.scope != Scope::default()))
            .collect()
    }
}

/// The path of a collection in one namespace.
fn narrowed(path: &str, plural: &str, namespace: &str) -> String {
    match path.strip_suffix(plural) {
        Some(root) if !namespace.is_empty() => format!("{root}namespaces/{namespace}/{plural}"),
        _ => path.to_owned(),
    }
}

/// Drops what nobody has used for a while.
async fn sweep(caches: Weak<Inner>) {
    loop {
        let Some(copies) = caches
            .upgrade()
            .map(|inner| Arc::clone(inner.words.copies()))
        else {
            // The caches are gone and with them the process, or a test.
            std::future::pending::<()>().await;
            return;
        };
        let pause = match copies.too_many() {
            true => CROWDED_PAUSE,
            false => TYPED_KEPT,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = copies.crowded(), if !copies.too_many() => {}
        }
        if let Some(inner) = caches.upgrade() {
            inner.sweep();
        }
    }
}

impl Inner {
    fn sweep(&self) {
        let stores: Vec<Arc<Store>> = {
            let slots = self.slots.lock();
            let all = slots.values().flatten();
            all.map(|slot| Arc::clone(&slot.store)).collect()
        };
        let dropped: usize = stores.iter().map(|store| store.sweep()).sum();
        self.words.sweep();
        if dropped > 0 {
            self.dropped.send_modify(|total| *total += dropped as u64);
        }
    }
}
