//! Garbage collection: what belongs to an owner goes with it.
//!
//! Flow: the shared caches of every kind the server offers -> [`Graph`](graph::Graph) of owners and dependants -> a queue
//! of uids -> one step each: delete, or let go.
//! Always: an owner that the graph does not know is asked for at the API server before anything is deleted on its
//! account; every deletion carries the uid, so a successor of the same name is never hit.

mod collect;
mod graph;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kinglet_reconcile::{
    Change, Context, Controller, DynamicCache, Key, Queue, ResourceKind, ResourceKinds,
};
use parking_lot::Mutex;

use graph::Graph;

/// Name of the controller, as in Kubernetes.
const NAME: &str = "generic-garbage-collector";
/// How long the first listings may take before collecting begins without the rest.
const FIRST_LISTINGS_MAX: Duration = Duration::from_secs(10);

/// What the collector's parts share.
pub(crate) struct Collector {
    pub(crate) graph: Mutex<Graph>,
    pub(crate) kinds: ResourceKinds,
    queue: Queue,
    /// Told about each object that is gone: its namespace.
    gone: Box<dyn Fn(&str) + Send + Sync>,
}

/// Starts discovery alone, or with the collector; `gone` is told the namespace of each object that disappears.
pub(crate) fn start(
    context: &Context,
    kinds: &ResourceKinds,
    gone: impl Fn(&str) + Send + Sync + 'static,
) {
    let controller = Controller::<Namespace>::unwatched(NAME).workers(4);
    let queue = controller.queue();
    let collector = Arc::new(Collector {
        graph: Mutex::default(),
        kinds: kinds.clone(),
        queue,
        gone: Box::new(gone),
    });
    let resynced = Arc::clone(&collector);
    let controller = controller.resyncs(move |_| {
        let uids = resynced.graph.lock().unsettled();
        uids.into_iter().map(|uid| Key::new("", uid)).collect()
    });
    let (context, feeder) = (context.named(NAME), Arc::clone(&collector));
    let tasks = context.tasks().clone();
    tasks.component_cancellable("garbage-collector", async move {
        let mut known = feeder.kinds.subscribe();
        let mut observed: Vec<KindObserver> = Vec::new();
        let mut controller = Some(controller);
        loop {
            let present = known.borrow_and_update().clone();
            follow(&context, &feeder, &present, &mut observed).await;
            // An owner of a kind that was not served was taken as present; now it can be asked for.
            let unsettled = feeder.graph.lock().with_unknown_owners();
            feeder.wake(unsettled);
            if let Some(controller) = controller.take_if(|_| !present.is_empty()) {
                first_listings(&observed).await;
                let collector = Arc::clone(&feeder);
                controller.run(&context, move |context, key| {
                    collect::reconcile(context, Arc::clone(&collector), key)
                });
            }
            if known.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Begins to observe kinds that are new and lets go of those that are gone.
async fn follow(
    context: &Context,
    collector: &Arc<Collector>,
    present: &[Arc<ResourceKind>],
    observed: &mut Vec<KindObserver>,
) {
    observed.retain(|kind| {
        let stays = present.contains(kind.cache.kind());
        if !stays {
            let wakes = {
                // Together, so that no observer that is under way puts one of its objects back.
                let mut graph = collector.graph.lock();
                kind.detached.store(true, Ordering::Release);
                graph.forget_kind(kind.cache.kind())
            };
            context.caches().release(kind.cache.kind());
            collector.wake(wakes);
        }
        stays
    });
    for kind in present.iter().filter(|kind| !is_ignored(kind)) {
        if observed.iter().any(|known| known.cache.kind() == kind) {
            continue;
        }
        // All objects of a kind are put into the graph at once.
        let turn = context.backlog().turn().await;
        observed.push(observe(context, collector, kind));
        drop(turn);
        tokio::task::yield_now().await;
    }
}

/// The collector's ear at one kind.
struct KindObserver {
    cache: DynamicCache,
    detached: Arc<AtomicBool>,
}

fn observe(
    context: &Context,
    collector: &Arc<Collector>,
    kind: &Arc<ResourceKind>,
) -> KindObserver {
    let cache = context.caches().dynamic(kind);
    let detached = Arc::new(AtomicBool::new(false));
    let (collector, gone) = (Arc::clone(collector), Arc::clone(&detached));
    let kind = Arc::clone(kind);
    cache.observe(move |change| {
        let mut graph = collector.graph.lock();
        if gone.load(Ordering::Acquire) {
            return false;
        }
        let (wakes, left) = match change {
            Change::Applied { new, .. } => (graph.put(&kind, new.head()), None),
            Change::Deleted(last) => (graph.remove(&last.head().uid), Some(last)),
            Change::Resync => return true,
        };
        drop(graph);
        collector.wake(wakes);
        if let Some(last) = left {
            collector.left(&last.head().key.namespace);
        }
        true
    });
    KindObserver { cache, detached }
}

/// Kinds that nobody owns and that change all the time are left out of the graph.
fn is_ignored(kind: &ResourceKind) -> bool {
    matches!(
        (kind.group.as_str(), kind.plural.as_str()),
        ("" | "events.k8s.io", "events")
            | ("coordination.k8s.io", "leases")
            | ("metrics.k8s.io", _)
    )
}

async fn first_listings(observed: &[KindObserver]) {
    let all = observed.iter().map(|kind| kind.cache.wait_synced());
    let all = futures_util::future::join_all(all);
    if tokio::time::timeout(FIRST_LISTINGS_MAX, all).await.is_err() {
        tracing::warn!("not every kind could be listed, collecting garbage without the rest");
    }
}

impl Collector {
    fn wake(&self, wakes: Vec<graph::Wake>) {
        for wake in wakes {
            match wake {
                graph::Wake::Now(uid) => self.queue.add(Key::new("", uid)),
                graph::Wake::Later(uid) => self.queue.add_after(Key::new("", uid), graph::SETTLE),
            }
        }
    }

    fn left(&self, namespace: &str) {
        if !namespace.is_empty() {
            (self.gone)(namespace);
        }
    }
}
