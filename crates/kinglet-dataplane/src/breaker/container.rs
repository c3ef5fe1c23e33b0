//! One container: its slots, and the connections kept open to it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use kinglet_decide::feed::Endpoint;
use tokio::time::Instant;

use super::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::options::Options;
use crate::pool::{H1Connection, H2Pool};

/// A container that takes requests. Slots change only under its breaker's lock.
pub(crate) struct Container {
    pub(crate) pod: Arc<str>,
    pub(crate) address: SocketAddr,
    /// The address as a Host header.
    pub(crate) host: HeaderValue,
    slots_in_use: AtomicU32,
    draining: AtomicBool,
    /// The pod is ending: it drains for good.
    terminating: AtomicBool,
    unreachable_until: AtomicU64,
    /// Woken when the last request leaves a draining container: the pods' preStop and the Service's end, one each.
    drain_waiters: Mutex<Vec<Waker>>,
    /// Idle HTTP/1 connections, the most recently used last.
    #[expect(
        clippy::vec_box,
        reason = "a connection is moved in and out for every request; as a pointer"
    )]
    idle: Mutex<Vec<Box<H1Connection>>>,
    /// Shared HTTP/2 connections.
    pub(crate) h2: H2Pool,
}

impl Container {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self {
            pod: endpoint.pod.clone(),
            address: endpoint.address,
            host: HeaderValue::from_str(&endpoint.address.to_string())
                .expect("addresses are plain ASCII"),
            slots_in_use: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            terminating: AtomicBool::new(false),
            unreachable_until: AtomicU64::new(0),
            drain_waiters: Mutex::default(),
            idle: Mutex::default(),
            h2: H2Pool::default(),
        }
    }

    /// Whether this is the container that `endpoint` describes; an address may be another pod's tomorrow.
    pub(crate) fn is(&self, endpoint: &Endpoint) -> bool {
        self.address == endpoint.address && self.pod == endpoint.pod
    }

    /// Requests on it, if it takes another one.
    pub(super) fn free(&self, concurrency: u32) -> Option<u32> {
        let slots_in_use = self.slots_in_use.load(Ordering::Relaxed);
        (!self.is_draining() && (concurrency == 0 || slots_in_use < concurrency))
            .then_some(slots_in_use)
    }

    pub(super) fn acquire_slot(&self) {
        self.slots_in_use.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a slot back; `true` when it was the last one of a draining container.
    pub(super) fn release_slot(&self) -> bool {
        let last = self.slots_in_use.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_draining();
        if last {
            let waiters = std::mem::take(&mut *self.drain_waiters.lock());
            waiters.into_iter().for_each(Waker::wake);
        }
        last
    }

    pub(super) fn slots_in_use(&self) -> u32 {
        self.slots_in_use.load(Ordering::Acquire)
    }

    pub(super) fn is_unreachable(&self, now: u64) -> bool {
        self.unreachable_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn unreachable_until(&self, until: u64) {
        self.unreachable_until.store(until, Ordering::Relaxed);
    }

    /// Records that a connection was made.
    pub(crate) fn mark_reachable(&self) {
        if self.unreachable_until.load(Ordering::Relaxed) != 0 {
            self.unreachable_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn was_unreachable(&self) -> bool {
        self.unreachable_until.load(Ordering::Relaxed) != 0
    }

    /// Gives no new slots from now on.
    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Gives slots again.
    pub(super) fn stop_draining(&self) {
        self.draining.store(false, Ordering::Release);
    }

    /// Drains for good, since the pod is about to end.
    pub(super) fn start_terminating(&self) {
        self.terminating.store(true, Ordering::Release);
        self.start_draining();
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Acquire)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Ends idle connections; busy ones end with their request.
    pub(super) fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
        self.h2.clear();
    }

    /// Resolves when no request is on it any more. Meaningful once it drains.
    pub(crate) async fn drained(&self) {
        poll_fn(|cx| {
            // Under the lock that the last request takes before it wakes: it is seen here, or wakes us.
            let mut waiters = self.drain_waiters.lock();
            if self.slots_in_use() == 0 {
                return Poll::Ready(());
            }
            if !waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn pop_idle(&self) -> Option<Box<H1Connection>> {
        self.idle.lock().pop()
    }

    pub(crate) fn keep_idle(&self, mut connection: Box<H1Connection>, idle_max: usize) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle.lock();
        // Asked under the lock: a container that begins to drain meanwhile has its idle connections closed after this.
        if !self.is_draining() && idle.len() < idle_max {
            idle.push(connection);
        } else {
            drop(idle);
            drop(connection);
        }
    }

    /// Drops idle connections that are too old or that the container has closed.
    pub(super) fn sweep(&self, options: &Options) {
        let mut dropped = Vec::new();
        {
            let mut idle = self.idle.lock();
            if !idle.is_empty() {
                let now = Instant::now();
                let mut context = Context::from_waker(Waker::noop());
                let mut at = 0;
                while at < idle.len() {
                    let too_old =
                        now.duration_since(idle[at].idle_since) > options.idle_connection_age_max;
                    if too_old || !idle[at].is_usable(&mut context) {
                        dropped.push(idle.remove(at));
                    } else {
                        at += 1;
                    }
                }
            }
        }
        drop(dropped);
        self.h2.sweep();
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.pod, self.address)
    }
}
