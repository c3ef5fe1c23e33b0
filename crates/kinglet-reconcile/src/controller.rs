//! A controller: what wakes it, how many work, what happens when a reconcile fails.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cache::{Change, DynamicObject, Head};
use crate::caches::Caches;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::event::{EventRecord, Severity, reference_to};
use crate::object::{Key, Object, key_of};
use crate::plan::Next;
use crate::queue::Queue;
use crate::warnings::Warnings;

/// Keys worked on at a time, as in Knative.
const WORKERS: usize = 2;
/// How often everything is looked at again, as in Knative.
const RESYNC: Duration = Duration::from_secs(10 * 3600);
/// How long one reconcile may take, as in Knative.
const DEADLINE: Duration = Duration::from_secs(30);

type Reconcile =
    Arc<dyn Fn(Context, Key) -> BoxFuture<'static, Result<Next, ReconcileError>> + Send + Sync>;
type Source = Box<dyn FnOnce(&Caches, &Queue) + Send>;
type Wait = Box<dyn FnOnce(&Caches) -> BoxFuture<'static, ()> + Send>;

/// A controller in the making; `P` is the kind it is responsible for.
pub struct Controller<P: Object> {
    name: &'static str,
    queue: Queue,
    sources: Vec<Source>,
    waits: Vec<Wait>,
    workers: usize,
    resync: Duration,
    deadline: Duration,
    reports_errors: bool,
    keys: KeysOf,
    primary: PhantomData<fn() -> P>,
}

impl<P: Object> Controller<P> {
    /// A controller woken by every change of a `P`. The name is the source of its events and its field manager.
    pub fn new(name: &'static str) -> Self {
        Self::unwatched(name).watches_heads::<P, _>(|head| [head.key.clone()])
    }

    /// A controller woken only by those `P` that `wanted` likes.
    pub fn only(name: &'static str, wanted: impl Fn(&P) -> bool + Send + Sync + 'static) -> Self {
        Self::unwatched(name).watches::<P, _>(move |object| wanted(object).then(|| key_of(object)))
    }

    /// A controller that nothing wakes yet.
    pub fn unwatched(name: &'static str) -> Self {
        Self {
            name,
            queue: Queue::default(),
            sources: Vec::new(),
            waits: Vec::new(),
            workers: WORKERS,
            resync: RESYNC,
            deadline: DEADLINE,
            reports_errors: false,
            keys: Arc::new(keys_of::<P>),
            primary: PhantomData,
        }
    }

    /// Wakes the owner (the controller reference to a `P`) when a `C` changes.
    #[must_use]
    pub fn owns<C: Object>(self) -> Self {
        self.watches_heads::<C, _>(|head| {
            let owner = head.controller()?;
            let is_ours = owner.is(&P::group(&()), &P::kind(&()));
            is_ours.then(|| Key::new(Arc::clone(&head.key.namespace), Arc::clone(&owner.name)))
        })
    }

    /// Wakes the keys that `map` names by the metadata of an `O` that changes; no typed copy is made for it.
    #[must_use]
    pub fn watches_heads<O: Object, I>(
        mut self,
        map: impl Fn(&Head) -> I + Send + Sync + 'static,
    ) -> Self
    where
        I: IntoIterator<Item = Key>,
    {
        self.sources.push(Box::new(move |caches, queue| {
            let cache = caches.cache::<O>();
            let waker = Waker::new(queue, cache.synced());
            let later = waker.clone();
            cache.observe_heads(move |change: &Change<DynamicObject>| {
                for state in change.states() {
                    map(state.head())
                        .into_iter()
                        .for_each(|key| waker.wake(key));
                }
            });
            later.begun();
        }));
        self.reads::<O>()
    }

    /// Wakes the keys that `map` names when an `O` changes; it is asked about the old state and the new one.
    #[must_use]
    pub fn watches<O: Object, I>(mut self, map: impl Fn(&O) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = Key>,
    {
        self.sources.push(Box::new(move |caches, queue| {
            let cache = caches.cache::<O>();
            let waker = Waker::new(queue, cache.synced());
            let later = waker.clone();
            cache.observe(move |change: &Change<O>| {
                for state in change.states() {
                    map(state).into_iter().for_each(|key| waker.wake(key));
                }
            });
            later.begun();
        }));
        self.reads::<O>()
    }

    /// Starts only when the cache of `O` is complete, without being woken by it.
    #[must_use]
    pub fn reads<O: Object>(mut self) -> Self {
        self.waits.push(Box::new(|caches| {
            let cache = caches.cache::<O>();
            Box::pin(async move { cache.wait_synced().await })
        }));
        self
    }

    /// How many keys are worked on at a time.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// What is looked at again, where that is not every `P` by its name.
    #[must_use]
    pub fn resyncs(mut self, keys: impl Fn(&Caches) -> Vec<Key> + Send + Sync + 'static) -> Self {
        self.keys = Arc::new(keys);
        self
    }

    /// How often everything is looked at again.
    #[must_use]
    pub fn resync(mut self, every: Duration) -> Self {
        self.resync = every;
        self
    }

    /// How long one reconcile may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Records a Warning `InternalError` on the object when a reconcile fails (Knative's controllers do).
    #[must_use]
    pub fn reports_errors(mut self) -> Self {
        self.reports_errors = true;
        self
    }

    /// The queue, for wake-ups that do not come from the API server.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Starts the controller as tasks of the context. The queue that is returned wakes keys from outside.
    pub fn run<R, F>(self, context: &Context, reconcile: R) -> Queue
    where
        R: Fn(Context, Key) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Next, ReconcileError>> + Send + 'static,
    {
        let context = context.named(self.name);
        let reconcile: Reconcile = Arc::new(move |context, key| Box::pin(reconcile(context, key)));
        let caches = context.caches().clone();
        for source in self.sources {
            source(&caches, &self.queue);
        }
        let waits: Vec<_> = self.waits.into_iter().map(|wait| wait(&caches)).collect();
        let running = Running {
            context,
            queue: self.queue.clone(),
            reconcile,
            deadline: self.deadline,
            subject: self.reports_errors.then_some(subject_of::<P> as SubjectOf),
            keys: self.keys,
            warnings: Arc::default(),
        };
        running.start(waits, self.workers, self.resync);
        self.queue
    }
}

type SubjectOf = fn(&Caches, &Key) -> Option<ObjectReference>;
type KeysOf = Arc<dyn Fn(&Caches) -> Vec<Key> + Send + Sync>;

fn subject_of<P: Object>(caches: &Caches, key: &Key) -> Option<ObjectReference> {
    caches
        .cache::<P>()
        .find(key)
        .map(|object| reference_to(&*object))
}

fn keys_of<P: Object>(caches: &Caches) -> Vec<Key> {
    caches.cache::<P>().keys()
}

/// Wakes the keys of changes. What was there at the start is looked at when nothing more urgent waits: after a restart
/// the one object that somebody waits for overtakes thousands.
#[derive(Clone)]
struct Waker {
    queue: Queue,
    synced: watch::Receiver<bool>,
    /// Whether the observer has been told what was there when it was registered.
    begun: Arc<AtomicBool>,
}

impl Waker {
    fn new(queue: &Queue, synced: watch::Receiver<bool>) -> Self {
        Self {
            queue: queue.clone(),
            synced,
            begun: Arc::default(),
        }
    }

    fn begun(&self) {
        self.begun.store(true, Ordering::Release);
    }

    fn wake(&self, key: Key) {
        if self.begun.load(Ordering::Acquire) && *self.synced.borrow() {
            self.queue.add(key);
        } else {
            self.queue.add_slowly(key);
        }
    }
}

/// A controller at work, its types erased.
#[derive(Clone)]
struct Running {
    context: Context,
    queue: Queue,
    reconcile: Reconcile,
    deadline: Duration,
    subject: Option<SubjectOf>,
    keys: KeysOf,
    warnings: Arc<Warnings>,
}

impl Running {
    fn start(self, waits: Vec<BoxFuture<'static, ()>>, workers: usize, resync: Duration) {
        let tasks = self.context.tasks().clone();
        // Before the first key is taken, so that no gain is missed.
        let mut gained = self.context.leadership().gained();
        tasks
            .clone()
            .component_cancellable("controller", async move {
                futures_util::future::join_all(waits).await;
                tracing::debug!(controller = self.context.component(), "caches are complete");
                self.context.gate().pass().await;
                let queue = self.queue.clone();
                tasks.component_cancellable("queue-timer", async move { queue.keep_time().await });
                for _ in 0..workers {
                    let worker = self.clone();
                    tasks.component_cancellable("worker", async move { worker.work().await });
                }
                let mut next_resync = Instant::now() + resync;
                loop {
                    tokio::select! {
                        () = sleep_until(next_resync) => next_resync = Instant::now() + resync,
                        // What changed while another replica led was left to it.
                        Ok(()) = gained.changed() => {}
                    }
                    let leadership = self.context.leadership();
                    for key in (self.keys)(self.context.caches()) {
                        if leadership.owns(&key) {
                            self.queue.add_slowly(key);
                        }
                    }
                }
            });
    }

    async fn work(&self) {
        loop {
            let (key, turn) = self.queue.next(self.context.backlog()).await;
            // Asked when the key is taken, which may be long after it was added. Who gains the bucket looks at all of it.
            if self.context.leadership().owns(&key) {
                let attempt = self.attempt(&key);
                let outcome = match turn {
                    Some(turn) => turn.spend(attempt).await,
                    None => attempt.await,
                };
                self.settle(&key, outcome);
            } else {
                self.queue.forgive(&key);
            }
            self.queue.done(&key);
        }
    }

    async fn attempt(&self, key: &Key) -> Result<Next, ReconcileError> {
        let run = AssertUnwindSafe(async {
            (self.reconcile)(self.context.for_key(key), key.clone()).await
        })
        .catch_unwind();
        match tokio::time::timeout(self.deadline, run).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(ReconcileError::Panicked(words(&*panic))),
            Err(_) => Err(ReconcileError::Timeout(self.deadline)),
        }
    }

    fn settle(&self, key: &Key, outcome: Result<Next, ReconcileError>) {
        let error = match outcome {
            Ok(next) => {
                self.queue.forgive(key);
                self.warnings.succeeded(key);
                match next {
                    Next::Done => {}
                    Next::After(delay) => self.queue.add_after(key.clone(), delay),
                    Next::Again => self.queue.add(key.clone()),
                }
                return;
            }
            Err(error) => error,
        };
        if error.is_not_leading() {
            tracing::debug!(controller = self.context.component(), %key, "left to the replica that leads now");
        } else if !error.is_stale() {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            // Once for each error of an object; the repetitions are for those who look closely.
            let text = format!("{error}: {cause:?}");
            if self.warnings.is_news(key, text) {
                tracing::warn!(controller = self.context.component(), %key, error = %error, cause, "reconcile failed");
            } else {
                tracing::debug!(controller = self.context.component(), %key, error = %error, cause, "reconcile failed again");
            }
            if let Some(about) = self
                .subject
                .and_then(|subject| subject(self.context.caches(), key))
            {
                let reason = "InternalError".to_owned();
                self.context.event(EventRecord {
                    about,
                    severity: Severity::Warning,
                    reason,
                    message: error.message(),
                });
            }
        }
        if error.retry_helps() {
            self.queue.retry(key);
        } else {
            self.queue.forgive(key);
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}
