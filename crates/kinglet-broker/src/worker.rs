//! One subscription of a channel: takes events in hand as the engine gives them, and has each delivered.
//!
//! Always: a worker shares nothing with other workers that it could hold up; what it has in hand is bounded by the engine
//! (100, or one in order).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use kinglet_process::Tasks;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Room;
use crate::deliver;
use crate::engine::{ChannelId, Cursor, EngineError, Order, Uid};
use crate::feed::{LastFailure, Report, Subscriber};
use crate::plane::{ChannelEntry, Plane};

/// After an error of the engine that may pass.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a subscription.
pub(crate) struct Subscription {
    pub(crate) uid: Uid,
    pub(crate) channel: ChannelId,
    /// The newest; an attempt uses what is in force when it begins.
    pub(crate) config: ArcSwap<Subscriber>,
    /// Of its subscriber's and sinks' answers.
    pub(crate) room: Room,
    pub(crate) failing: Mutex<Option<LastFailure>>,
    /// Since when it has been in force.
    pub(crate) began: Instant,
    /// It is to stop: nothing new is begun.
    pub(crate) stopping: CancellationToken,
}

impl Subscription {
    /// Remembers how an attempt ended, and tells when that is news.
    pub(crate) fn attempted(
        &self,
        plane: &Plane,
        at: Timestamp,
        failure: Option<(Option<u16>, String)>,
    ) {
        let is_news = {
            let mut failing = self.failing.lock();
            let was_failing = failing.is_some();
            *failing = failure.map(|(status, words)| LastFailure {
                since: failing.as_ref().map_or(at, |last| last.since),
                at,
                count: failing.as_ref().map_or(0, |last| last.count) + 1,
                status,
                words,
            });
            was_failing != failing.is_some()
        };
        if is_news {
            plane.reports.tell(Report::SubscriptionChanged {
                channel: self.channel.clone(),
                subscription: self.uid.clone(),
            });
        }
    }
}

/// A subscription with its tasks.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) subscription: Arc<Subscription>,
    tasks: Tasks,
    /// Cancelled when its cursor is given back: somebody else can subscribe then.
    left: CancellationToken,
    /// For the large events in hand: with [`crate::body::SMALL_BYTES_MAX`] for each of the others, what a subscription
    /// that does not answer costs.
    in_hand: Room,
    /// Whoever takes events, and the deliveries under way.
    busy: TaskTracker,
}

impl Worker {
    /// Subscribes, and begins to deliver. Every event that is accepted after this call gets here.
    pub(crate) fn start(
        plane: &Arc<Plane>,
        channel: &ChannelEntry,
        config: Subscriber,
    ) -> Result<Self, EngineError> {
        let order = match config.ordered {
            true => Order::Ordered,
            false => Order::Unordered,
        };
        let cursor = channel.log.subscribe(&config.uid, order)?;
        let tasks = plane.tasks.child();
        let subscription = Arc::new(Subscription {
            uid: config.uid.clone(),
            channel: channel.id.clone(),
            config: ArcSwap::from_pointee(config),
            room: Room::default(),
            failing: Mutex::default(),
            began: Instant::now(),
            stopping: tasks.token().child_token(),
        });
        let worker = Self {
            subscription,
            tasks,
            left: CancellationToken::new(),
            in_hand: Room::default(),
            busy: TaskTracker::new(),
        };
        let left = worker.left.clone().drop_guard();
        let taking = take(plane.clone(), worker.clone(), cursor);
        let taking = async move {
            let _left = left;
            taking.await;
        };
        worker
            .tasks
            .spawn("subscription", worker.busy.track_future(taking));
        Ok(worker)
    }

    /// Begins nothing new.
    pub(crate) fn stop(&self) {
        self.subscription.stopping.cancel();
    }

    /// Stops, and waits until another one can subscribe; what is under way has so long to end by itself.
    pub(crate) async fn leave(self, plane: &Plane, grace: Duration) {
        self.stop();
        let left = self.left.clone();
        plane.tasks.spawn(
            "end of a subscription",
            async move { self.end(grace).await },
        );
        left.cancelled().await;
    }

    /// Stops, and waits for what is under way; what is not over in time is dropped, and delivered again when somebody
    /// subscribes as this one.
    pub(crate) async fn end(&self, grace: Duration) {
        self.stop();
        self.busy.close();
        let _ = tokio::time::timeout(grace, self.busy.wait()).await;
        self.tasks.shutdown(CANCELLED_MAX).await;
    }
}

/// Dropped tasks are over at their next wait.
const CANCELLED_MAX: Duration = Duration::from_secs(5);

async fn take(plane: Arc<Plane>, worker: Worker, mut cursor: Box<dyn Cursor>) {
    let subscription = &worker.subscription;
    loop {
        let next = tokio::select! {
            biased;
            () = subscription.stopping.cancelled() => return,
            next = cursor.next() => next,
        };
        match next {
            Ok(delivered) => {
                let bytes = delivered.event.bytes();
                let room = tokio::select! {
                    biased;
                    // The event is given back.
                    () = subscription.stopping.cancelled() => return,
                    room = worker.in_hand.take_if_large(bytes) => room,
                };
                let delivery = deliver::deliver(plane.clone(), subscription.clone(), delivered);
                let delivery = worker.busy.track_future(async move {
                    let _room = room;
                    delivery.await;
                });
                worker.tasks.spawn_cancellable("event delivery", delivery);
            }
            Err(EngineError::Io { .. }) => {
                // Said by the engine; the event stays where it is.
                tokio::select! {
                    () = subscription.stopping.cancelled() => return,
                    () = tokio::time::sleep(ENGINE_PAUSE) => {}
                }
            }
            Err(error) => {
                tracing::debug!(subscription = %subscription.uid, "a subscription ends: {error}");
                return;
            }
        }
    }
}
