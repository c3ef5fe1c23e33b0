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

/// What a connection is told. Orders only become stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    GoOn = 0,
    WindDown = 1,
    End = 2,
}

/// What happens on a connection, and what it is told.
#[derive(Default)]
pub(crate) struct Activity {
    in_flight: AtomicU32,
    started: AtomicU64,
    order: AtomicU8,
    /// When the answer being written should have ended, in nanoseconds of the data plane's clock; 0 for never.
    overdue_at: AtomicU64,
    pub(super) waker: AtomicWaker,
    /// `started` as the last check saw it.
    checked: AtomicU64,
    was_idle: AtomicBool,
}

impl Activity {
    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::GoOn,
            1 => Order::WindDown,
            _ => Order::End,
        }
    }

    fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.waker.wake();
        }
    }

    /// Called at a steady pace: one without a request between two calls is idle and told to end; one that at the next
    /// call is still there (half a request, perhaps, and no more of it) is ended.
    fn check(&self, now: u64) {
        let overdue_at = self.overdue_at.load(Ordering::Relaxed);
        if overdue_at != 0 && overdue_at < now {
            // Its clock cannot cut it, because a client that does not read keeps it from being asked.
            self.tell(Order::End);
            return;
        }
        let started = self.started.load(Ordering::Relaxed) + 1;
        let idle = self.in_flight.load(Ordering::Relaxed) == 0
            && self.checked.swap(started, Ordering::Relaxed) == started;
        let was_idle = self.was_idle.swap(idle, Ordering::Relaxed);
        if idle {
            self.tell(if was_idle {
                Order::End
            } else {
                Order::WindDown
            });
        }
    }
}

/// Held while a request is served: its connection is not idle.
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }

    /// The whole connection ends when this is still held after `at` (HTTP/1 only, where it has no other request).
    pub(crate) fn overdue_at(&self, at: u64) {
        self.0.overdue_at.store(at, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.overdue_at.store(0, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections there are. Bounded by `Options::connections_max`.
#[derive(Default)]
pub(crate) struct Roster {
    next: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Activity>>>,
    watched: AtomicBool,
}

/// A connection's entry; gone when dropped.
pub(super) struct Known<'a> {
    roster: &'a Roster,
    number: u64,
}

impl Roster {
    /// Enters a connection.
    pub(super) fn enter(&self, activity: &Arc<Activity>, stop: &CancellationToken) -> Known<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().insert(number, activity.clone());
        // Asked after entering: one that comes after everybody was told must learn it too.
        if stop.is_cancelled() {
            activity.tell(Order::WindDown);
        }
        Known {
            roster: self,
            number,
        }
    }

    /// `true` the first time: the caller starts [`watch`].
    pub(crate) fn needs_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::Relaxed)
    }

    fn for_each(&self, act: impl Fn(&Activity)) {
        self.connections
            .lock()
            .values()
            .for_each(|activity| act(activity));
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.roster.connections.lock().remove(&self.number);
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
                plane.roster.for_each(|activity| activity.tell(Order::End));
                return;
            }
            () = stop.cancelled(), if !stopped => {
                stopped = true;
                plane.roster.for_each(|activity| activity.tell(Order::WindDown));
            }
            _ = checks.tick() => {
                let now = plane.wiring.now();
                plane.roster.for_each(|activity| activity.check(now));
            }
        }
    }
}
