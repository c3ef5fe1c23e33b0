//! One container: its slots, and the connections kept open to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Context;

use kinglet_decide::feed::Endpoint;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::link::{H1Link, H2Links};
use crate::options::Options;

/// A container that takes requests. Slots change only under its lobby's lock.
pub(crate) struct Container {
    pub(crate) pod: Arc<str>,
    pub(crate) address: SocketAddr,
    taken: AtomicU32,
    closing: AtomicBool,
    suspect_until: AtomicU64,
    /// Told when the last request leaves a closing container.
    empty: Notify,
    /// Idle HTTP/1 connections, the most recently used last.
    #[expect(
        clippy::vec_box,
        reason = "a link is moved in and out for every request; as a pointer"
    )]
    idle: Mutex<Vec<Box<H1Link>>>,
    /// Shared HTTP/2 connections.
    pub(crate) h2: H2Links,
}

impl Container {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self {
            pod: endpoint.pod.clone(),
            address: endpoint.address,
            taken: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            suspect_until: AtomicU64::new(0),
            empty: Notify::new(),
            idle: Mutex::default(),
            h2: H2Links::default(),
        }
    }

    /// Whether this is the container that `endpoint` describes; an address may be another pod's tomorrow.
    pub(crate) fn is(&self, endpoint: &Endpoint) -> bool {
        self.address == endpoint.address && self.pod == endpoint.pod
    }

    /// Requests on it, if it takes another one.
    pub(super) fn free(&self, concurrency: u32) -> Option<u32> {
        let taken = self.taken.load(Ordering::Relaxed);
        (!self.is_closing() && (concurrency == 0 || taken < concurrency)).then_some(taken)
    }

    pub(super) fn occupy(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn vacate(&self) {
        if self.taken.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_closing() {
            self.empty.notify_waiters();
        }
    }

    pub(super) fn is_suspect(&self, now: u64) -> bool {
        self.suspect_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn suspect_until(&self, until: u64) {
        self.suspect_until.store(until, Ordering::Relaxed);
    }

    /// A connection was made: it is well again.
    pub(crate) fn trust(&self) {
        if self.suspect_until.load(Ordering::Relaxed) != 0 {
            self.suspect_until.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn was_unreachable(&self) -> bool {
        self.suspect_until.load(Ordering::Relaxed) != 0
    }

    /// No new seats from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends idle connections; busy ones end with their request.
    pub(super) fn hang_up(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
        self.h2.clear();
    }

    /// Resolves when no request is on it any more. Meaningful once it is closing.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn pop_idle(&self) -> Option<Box<H1Link>> {
        self.idle.lock().pop()
    }

    pub(crate) fn keep_idle(&self, mut link: Box<H1Link>, idle_max: usize) {
        if self.is_closing() {
            return;
        }
        link.idle_since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < idle_max {
            idle.push(link);
        } else {
            drop(idle);
            drop(link);
        }
    }

    /// Drops idle connections that are too old or that the container has closed.
    pub(super) fn sweep(&self, options: &Options) {
        let mut dropped = Vec::new();
        {
            let mut idle = self.idle.lock();
            if !idle.is_empty() {
                let now = Instant::now();
                let mut context = Context::from_waker(std::task::Waker::noop());
                let mut at = 0;
                while at < idle.len() {
                    let too_old =
                        now.duration_since(idle[at].idle_since) > options.idle_link_age_max;
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
