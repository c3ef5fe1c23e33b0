//! All client connections, watched by one task: a connection itself carries no timer and listens to no channel.
//!
//! The task tells idle connections to end, all of them to end with their last answer when the data plane stops, and those
//! that are left to end at once when it is killed.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::options::Options;
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

    /// Resolves when the connection is asked to close in any way.
    pub(super) async fn closing(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            match self.close_mode() {
                CloseMode::Open => Poll::Pending,
                CloseMode::Graceful | CloseMode::Now => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Whether a request has begun whose response has not ended.
    pub(super) fn has_request(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
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

/// The connections there are, by source. Bounded by `Options::connections_max` and its siblings.
#[derive(Default)]
pub(crate) struct ConnectionRegistry {
    next: AtomicU64,
    by_source: Mutex<HashMap<IpAddr, Connections>>,
    watched: AtomicBool,
}

/// Connections of one source, oldest first.
type Connections = BTreeMap<u64, Arc<ConnectionActivity>>;

/// A connection's entry; gone when dropped.
pub(super) struct Registration {
    registry: Arc<ConnectionRegistry>,
    source: IpAddr,
    number: u64,
}

/// What counts as one client: an IPv4 address, or the part of an IPv6 address that a network gives to one customer.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

/// Asks the longest idle of `connections` to close; `false` when none is idle.
fn close_idle(connections: &Connections) -> bool {
    let idle = connections.values().find(|activity| {
        activity.in_flight.load(Ordering::Relaxed) == 0 && activity.close_mode() != CloseMode::Now
    });
    if let Some(activity) = idle {
        activity.ask_to_close(CloseMode::Now);
    }
    idle.is_some()
}

impl ConnectionRegistry {
    /// Enters a connection from `address`; `None` when its source has too many, none of them idle.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        activity: &Arc<ConnectionActivity>,
        options: &Options,
        stop: &CancellationToken,
    ) -> Option<Registration> {
        let source = source_of(address);
        let most = if source.is_loopback() {
            options.connections_loopback_max
        } else {
            options.connections_per_source_max
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut by_source = self.by_source.lock();
            let connections = by_source.entry(source).or_default();
            // One that has been asked to close is counted until it has.
            if connections.len() >= most && !close_idle(connections) {
                return None;
            }
            connections.insert(number, activity.clone());
        }
        // Asked after entering: one that comes after all were asked to close must learn it too.
        if stop.is_cancelled() {
            activity.ask_to_close(CloseMode::Graceful);
        }
        Some(Registration {
            registry: self.clone(),
            source,
            number,
        })
    }

    /// Asks an idle connection of the source with the most of them to close, since a client waits to be accepted.
    pub(super) fn make_room(&self) {
        let by_source = self.by_source.lock();
        let mut sources: Vec<&Connections> = by_source.values().collect();
        sources.sort_unstable_by_key(|connections| std::cmp::Reverse(connections.len()));
        let _ = sources.into_iter().any(close_idle);
    }

    /// `true` the first time: the caller starts [`watch`].
    pub(crate) fn needs_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::Relaxed)
    }

    fn for_each(&self, act: impl Fn(&ConnectionActivity)) {
        let by_source = self.by_source.lock();
        let connections = by_source.values().flat_map(BTreeMap::values);
        connections.for_each(|activity| act(activity));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut by_source = self.registry.by_source.lock();
        if let Some(connections) = by_source.get_mut(&self.source) {
            connections.remove(&self.number);
            if connections.is_empty() {
                by_source.remove(&self.source);
            }
        }
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
                // They are cancelled together with it; who ends before that is a fault.
                return plane.upstreams.token().cancelled().await;
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
