//! All client connections, watched by one task: a connection itself carries no timer and listens to no channel.
//!
//! The task tells idle connections to end, all of them to end with their last answer when the data plane stops, and those
//! that are left to end at once when it is killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;

/// How a connection is asked to close. Requests only become stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseMode {
    Open = 0,
    Graceful = 1,
    Now = 2,
}

/// What happens on a connection, and what it is told.
#[derive(Default)]
pub(crate) struct ConnectionActivity {
    in_flight: AtomicU32,
    started: AtomicU64,
    close_mode: AtomicU8,
    /// When the answer being written should have ended, in nanoseconds of the data plane's clock; 0 for never.
    overdue_at: AtomicU64,
    pub(super) waker: AtomicWaker,
    /// `started` as the last check saw it.
    checked: AtomicU64,
    was_idle: AtomicBool,
}

impl ConnectionActivity {
    pub(super) fn close_mode(&self) -> CloseMode {
        match self.close_mode.load(Ordering::Acquire) {
            0 => CloseMode::Open,
            1 => CloseMode::Graceful,
            _ => CloseMode::Now,
        }
    }

    fn ask_to_close(&self, mode: CloseMode) {
        if self.close_mode.fetch_max(mode as u8, Ordering::AcqRel) < mode as u8 {
            self.waker.wake();
        }
    }

    /// Called at a steady pace: one without a request between two calls is idle and told to end; one that at the next
    /// call is still there (half a request, perhaps, and no more of it) is ended.
    fn check(&self, now: u64) {
        let overdue_at = self.overdue_at.load(Ordering::Relaxed);
        if overdue_at != 0 && overdue_at < now {
            // Its clock cannot cut it, because a client that does not read keeps it from being asked.
            self.ask_to_close(CloseMode::Now);
            return;
        }
        let started = self.started.load(Ordering::Relaxed) + 1;
        let idle = self.in_flight.load(Ordering::Relaxed) == 0
            && self.checked.swap(started, Ordering::Relaxed) == started;
        let was_idle = self.was_idle.swap(idle, Ordering::Relaxed);
        if idle {
            self.ask_to_close(if was_idle {
                CloseMode::Now
            } else {
                CloseMode::Graceful
            });
        }
    }
}

/// Held while a request is served: its connection is not idle.
pub(crate) struct ActiveRequest(Arc<ConnectionActivity>);

impl ActiveRequest {
    pub(super) fn new(activity: &Arc<ConnectionActivity>) -> Self {
        activity.started.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }

    /// The whole connection ends when this is still held after `at` (HTTP/1 only, where it has no other request).
    pub(crate) fn overdue_at(&self, at: u64) {
        self.0.overdue_at.store(at, Ordering::Relaxed);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.overdue_at.store(0, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections there are. Bounded by `Options::connections_max`.
#[derive(Default)]
pub(crate) struct ConnectionRegistry {
    next: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<ConnectionActivity>>>,
    watched: AtomicBool,
}

/// A connection's entry; gone when dropped.
pub(super) struct Registration<'a> {
    registry: &'a ConnectionRegistry,
    number: u64,
}

impl ConnectionRegistry {
    /// Enters a connection.
    pub(super) fn enter(
        &self,
        activity: &Arc<ConnectionActivity>,
        stop: &CancellationToken,
    ) -> Registration<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().insert(number, activity.clone());
        // Asked after entering: one that comes after everybody was told must learn it too.
        if stop.is_cancelled() {
            activity.ask_to_close(CloseMode::Graceful);
        }
        Registration {
            registry: self,
            number,
        }
    }

    /// `true` the first time: the caller starts [`watch`].
    pub(crate) fn needs_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::Relaxed)
    }

    fn for_each(&self, act: impl Fn(&ConnectionActivity)) {
        self.connections
            .lock()
            .values()
            .for_each(|activity| act(activity));
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.registry.connections.lock().remove(&self.number);
    }
}

/// Watches all connections until the data plane is killed.
pub(crate) async fn watch(plane: Arc<Plane>) {
    let half = plane.options().client_idle / 2;
    let mut checks = tokio::time::interval_at(Instant::now() + half, half);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = plane.connections.token();
    let mut stopped = false;
    loop {
        tokio::select! {
            () = plane.killed.cancelled() => {
                plane.registry.for_each(|activity| activity.ask_to_close(CloseMode::Now));
                return;
            }
            () = stop.cancelled(), if !stopped => {
                stopped = true;
                plane.registry.for_each(|activity| activity.ask_to_close(CloseMode::Graceful));
            }
            _ = checks.tick() => {
                let now = plane.context.now();
                plane.registry.for_each(|activity| activity.check(now));
            }
        }
    }
}
