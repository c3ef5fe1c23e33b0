//! Garbage collection: what belongs to an owner goes with it.
//!
//! Flow: metadata watches of every kind the server offers -> [`Graph`](graph::Graph) of owners and dependants -> a queue
//! of uids -> one step each: delete, or let go.
//! Always: an owner that the graph does not know is asked for at the API server before anything is deleted on its
//! account; every deletion carries the uid, so a successor of the same name is never hit.

mod collect;
mod discover;
mod graph;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinglet_reconcile::{Change, Context, Controller, Key, Queue};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use discover::{ResourceKind, ResourceKinds};
use graph::Graph;
use sink::KindSink;

/// Name of the controller, as in Kubernetes.
const NAME: &str = "generic-garbage-collector";
/// How often the server's kinds are looked at although no CustomResourceDefinition changed.
const REDISCOVER: Duration = Duration::from_secs(300);
/// How long after a changed CustomResourceDefinition they are looked at once more.
const REDISCOVER_AFTER_CHANGE: Duration = Duration::from_secs(2);
/// How long after a failure.
const REDISCOVER_AFTER_FAILURE: Duration = Duration::from_secs(2);
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
    let (context, feeder) = (context.named(NAME), Arc::clone(&collector));
    let tasks = context.tasks().clone();
    tasks.component_cancellable("garbage collector", async move {
        let mut known = feeder.kinds.subscribe();
        let mut sinks: Vec<Arc<KindSink>> = Vec::new();
        let mut controller = Some(controller);
        loop {
            let present = known.borrow_and_update().clone();
            follow(&context, &feeder, &present, &mut sinks);
            // An owner of a kind that was not served was taken as present; now it can be asked for.
            let unsettled = feeder.graph.lock().with_unknown_owners();
            feeder.wake(unsettled);
            if let Some(controller) = controller.take_if(|_| !present.is_empty()) {
                first_listings(&sinks).await;
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

/// Keeps the list of kinds current.
pub(crate) fn discover(context: &Context) -> ResourceKinds {
    let kinds = ResourceKinds::default();
    let changed = Arc::new(Notify::new());
    let bell = Arc::clone(&changed);
    context
        .cache::<CustomResourceDefinition>()
        .observe(move |_: &Change<_>| bell.notify_one());
    let (found, client) = (kinds.clone(), context.client().clone());
    context
        .tasks()
        .component_cancellable("discovery", async move {
            // The server may offer a kind a moment after its definition has changed, so a change is looked at twice.
            let mut just_changed = false;
            loop {
                let pause = match discover::all(&client).await {
                    Ok(all) => {
                        found.set(all);
                        if just_changed {
                            REDISCOVER_AFTER_CHANGE
                        } else {
                            REDISCOVER
                        }
                    }
                    Err(error) => {
                        tracing::debug!(error = %error, "discovery failed, trying again");
                        REDISCOVER_AFTER_FAILURE
                    }
                };
                just_changed = tokio::select! {
                    () = changed.notified() => true,
                    () = tokio::time::sleep(pause) => false,
                };
            }
        });
    kinds
}

/// Starts feeds of kinds that are new and ends those of kinds that are gone.
fn follow(
    context: &Context,
    collector: &Arc<Collector>,
    present: &[Arc<ResourceKind>],
    sinks: &mut Vec<Arc<KindSink>>,
) {
    sinks.retain(|sink| {
        let stays = present.contains(sink.kind());
        if !stays {
            sink.abandon();
        }
        stays
    });
    for kind in present.iter().filter(|kind| !kind.is_ignored()) {
        if sinks.iter().any(|sink| sink.kind() == kind) {
            continue;
        }
        let sink = Arc::new(KindSink::new(Arc::clone(collector), Arc::clone(kind)));
        sinks.push(Arc::clone(&sink));
        let feed = kinglet_reconcile::feed::Feed {
            path: kind.path(None),
            labels: String::new(),
            fields: String::new(),
            metadata_only: true,
        };
        context
            .tasks()
            .spawn_cancellable("garbage feed", feed.run(context.client().clone(), sink));
    }
}

async fn first_listings(sinks: &[Arc<KindSink>]) {
    let all = futures_util::future::join_all(sinks.iter().map(|sink| sink.wait_synced()));
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
