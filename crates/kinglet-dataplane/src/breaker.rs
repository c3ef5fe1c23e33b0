//! Admits requests to the containers of one backend, or queues them: Knative's activator throttler and queue-proxy breaker in one.
//!
//! Guarantees: containers never hold more requests than their limit; waiting requests are admitted in the order they
//! came; a slot or a place in the queue is given back however the request ends; while somebody waits and no container is
//! open, the autoscaler has been poked.
//! Assumes: `now` (from [`BreakerContext`]) does not go back.
//! One short lock per arrival and per departure; no lock is held across an await, and nothing is dropped under it that
//! would take it again. `cargo xtask soak loom` tries the orders of its threads (`interleavings`).

mod config;
mod container;
mod context;
mod slot;
mod sync;

#[cfg(all(test, kinglet_loom))]
mod interleavings;
#[cfg(all(test, not(kinglet_loom)))]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use kinglet_decide::balance::{Cursor, Policy};
use kinglet_decide::feed::{Endpoint, Key, Stat};
use kinglet_decide::meter::Meter;
use tokio::sync::oneshot;

pub(crate) use config::ClusterConfig;
pub(crate) use container::Container;
pub(crate) use context::BreakerContext;
pub(crate) use slot::{PendingSlot, Slot, Waiter};

use crate::options::Options;
use sync::Mutex;

/// For this long a container that refused a connection is used only when no other has a free slot.
const UNREACHABLE_PAUSE_NANOS: u64 = 250_000_000;

/// What a request that asks for a slot is given.
pub(crate) enum Admission {
    /// A slot was free.
    Admitted(Slot),
    /// Every slot is in use: await the waiter.
    Queued(Waiter),
    /// The queue is at its bound.
    QueueFull,
    /// The backend was deleted.
    Removed,
}

/// The containers of one backend and the requests that wait for a slot on them.
pub(crate) struct Breaker {
    key: Key,
    context: Arc<BreakerContext>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` until an update describes the backend, and after one has removed it.
    config: Option<Arc<ClusterConfig>>,
    /// The backend was described and then removed: nobody waits for it.
    removed: bool,
    containers: Vec<Arc<Container>>,
    /// Containers that left the endpoints with requests still on them; each leaves the list with its last request.
    draining: Vec<Arc<Container>>,
    /// Longest waiting first. Those who gave up stay until they are passed over.
    waiters: VecDeque<oneshot::Sender<PendingSlot>>,
    /// Waiters that still wait.
    waiting: usize,
    cursor: Cursor,
    meter: Meter,
    poked_at: Option<u64>,
}

/// What a breaker holds at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    pub(crate) configuration: Option<Arc<str>>,
    pub(crate) is_revision: bool,
    pub(crate) is_limited: bool,
    pub(crate) waiting: u32,
    /// Waiting ones included.
    pub(crate) in_flight: u32,
}

impl Breaker {
    pub(crate) fn new(key: Key, context: Arc<BreakerContext>) -> Arc<Self> {
        let now = context.now();
        let seed = now
            ^ key
                .name
                .bytes()
                .fold(0x9e37_79b9_7f4a_7c15, |seed: u64, byte| {
                    seed.rotate_left(7) ^ u64::from(byte)
                });
        Arc::new(Self {
            key,
            context,
            inner: Mutex::new(Inner {
                config: None,
                removed: false,
                containers: Vec::new(),
                draining: Vec::new(),
                waiters: VecDeque::new(),
                waiting: 0,
                cursor: Cursor::new(seed),
                meter: Meter::new(now),
                poked_at: None,
            }),
        })
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Admits a request at once, queues it, or refuses it when the queue is full.
    /// `proxied`: an activator counts it, too.
    pub(crate) fn admit(self: &Arc<Self>, proxied: bool) -> Admission {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        if inner.waiting == 0
            && let Some((config, container)) = inner.take(now)
        {
            inner.enter(now, proxied);
            drop(inner);
            return Admission::Admitted(Slot::new(self.clone(), config, container, proxied));
        }
        if inner.removed {
            return Admission::Removed;
        }
        let depth = inner.config.as_ref().and_then(|config| config.depth);
        if inner.waiting >= depth.unwrap_or(self.context.options.queue_depth) {
            return Admission::QueueFull;
        }
        inner.enter(now, proxied);
        let receiver = inner.enqueue(false);
        let config = inner.config.clone();
        let cold = inner.is_empty();
        let poke = inner.wants_poke(now, &self.context.options);
        drop(inner);
        if poke {
            self.context.poke(&self.key);
        }
        Admission::Queued(Waiter::new(self.clone(), config, cold, proxied, receiver))
    }

    /// Admits a request whose container could not be reached a second time: on another container, or at the head of the queue.
    fn readmit(self: &Arc<Self>, unreachable: &Arc<Container>, proxied: bool) -> Admission {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        unreachable.unreachable_until(now + UNREACHABLE_PAUSE_NANOS);
        inner.release_slot(unreachable);
        // Before those who wait: it came earlier. They lose nothing, since there was no other free slot for them.
        if let Some((config, container)) = inner.take(now) {
            drop(inner);
            return Admission::Admitted(Slot::new(self.clone(), config, container, proxied));
        }
        if inner.removed {
            inner.leave(now, proxied);
            return Admission::Removed;
        }
        let receiver = inner.enqueue(true);
        let config = inner.config.clone();
        let cold = inner.is_empty();
        let poke = inner.wants_poke(now, &self.context.options);
        drop(inner);
        if poke {
            self.context.poke(&self.key);
        }
        Admission::Queued(Waiter::new(self.clone(), config, cold, proxied, receiver))
    }

    /// A request ended: frees its slot, if it had one, for the next in the queue.
    fn release(self: &Arc<Self>, container: Option<&Arc<Container>>, proxied: bool) {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        inner.leave(now, proxied);
        if let Some(container) = container {
            inner.release_slot(container);
            if inner.waiting > 0 {
                self.admit_waiters(&mut inner, now);
            }
        }
    }

    /// Returns a slot that was granted to a waiter who did not take it.
    fn return_slot(self: &Arc<Self>, container: &Arc<Container>) {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        inner.release_slot(container);
        self.admit_waiters(&mut inner, now);
    }

    /// Admits as many waiters as there are free slots.
    fn admit_waiters(self: &Arc<Self>, inner: &mut Inner, now: u64) {
        while inner.waiting > 0 {
            let Some((config, container)) = inner.take(now) else {
                return;
            };
            let mut pending = PendingSlot::new(self.clone(), config, container);
            loop {
                let Some(waiter) = inner.waiters.pop_front() else {
                    // The count and the queue disagree, which cannot happen; the slot is given back all the same.
                    if let Some(container) = pending.disarm() {
                        inner.release_slot(&container);
                    }
                    inner.waiting = 0;
                    return;
                };
                match waiter.send(pending) {
                    Ok(()) => {
                        inner.waiting -= 1;
                        break;
                    }
                    Err(refused) => pending = refused,
                }
            }
        }
        inner.poked_at = None;
    }

    /// Takes over a new description of the backend. Containers that stay keep their connections and requests.
    pub(crate) fn update(self: &Arc<Self>, config: ClusterConfig, endpoints: &[Endpoint]) {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        if inner.config.as_deref() != Some(&config) {
            inner.config = Some(Arc::new(config));
        }
        inner.removed = false;
        let mut gone = std::mem::take(&mut inner.containers);
        for endpoint in endpoints {
            let container = take_matching(&mut gone, endpoint)
                .or_else(|| inner.revive(endpoint))
                .unwrap_or_else(|| Arc::new(Container::new(endpoint)));
            inner.containers.push(container);
        }
        inner.drain(&gone);
        self.admit_waiters(&mut inner, now);
        let poke = inner.wants_poke(now, &self.context.options);
        drop(inner);
        gone.iter().for_each(|container| container.close_idle());
        if poke {
            self.context.poke(&self.key);
        }
    }

    /// Called when the backend was deleted, or is served by another breaker from now on: its containers drain, and
    /// requests that wait for it end at once, or look it up again.
    pub(crate) fn remove(&self) {
        let mut inner = self.inner.lock();
        inner.config = None;
        inner.removed = true;
        let gone = std::mem::take(&mut inner.containers);
        // Under the lock, so that a waiter dropped meanwhile does not count itself out a second time.
        inner.waiters.clear();
        inner.waiting = 0;
        inner.drain(&gone);
        drop(inner);
        gone.iter().for_each(|container| container.close_idle());
    }

    /// Called when a new route table names the backend: a removed one is expected to be described again, and requests
    /// wait for that.
    pub(crate) fn expect_again(&self) {
        self.inner.lock().removed = false;
    }

    /// Gives no more slots on containers of `ip`, whose pod is about to end. Returns those containers, also the ones that
    /// have left the endpoints and only finish their requests.
    pub(crate) fn drain_address(&self, ip: IpAddr) -> Vec<Arc<Container>> {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        let ending: Vec<_> = inner
            .containers
            .iter()
            .chain(&inner.draining)
            .filter(|container| container.address.ip() == ip)
            .cloned()
            .collect();
        for container in &ending {
            container.start_terminating();
        }
        let poke = !ending.is_empty() && inner.wants_poke(now, &self.context.options);
        drop(inner);
        ending.iter().for_each(|container| container.close_idle());
        if poke {
            self.context.poke(&self.key);
        }
        ending
    }

    /// Once a second: what to report, another poke where one is due, and idle connections that are too old.
    pub(crate) fn tick(&self) -> Option<Stat> {
        let now = self.context.now();
        let mut inner = self.inner.lock();
        let poke = inner.wants_poke(now, &self.context.options);
        let stat = inner.meter.report(now).filter(|_| {
            inner
                .config
                .as_ref()
                .is_some_and(|config| config.hop.is_revision())
        });
        let containers = inner.containers.clone();
        drop(inner);
        if poke {
            self.context.poke(&self.key);
        }
        containers
            .iter()
            .for_each(|container| container.sweep(&self.context.options));
        stat
    }

    /// A container that takes requests, without a slot on it.
    pub(crate) fn any_container(&self) -> Option<(Arc<ClusterConfig>, Arc<Container>)> {
        let inner = self.inner.lock();
        let open = inner.containers.iter().find(|open| !open.is_draining())?;
        Some((inner.config.clone()?, open.clone()))
    }

    /// Requests in flight, waiting ones included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.inner.lock().meter.in_flight()
    }

    /// What is to be seen of it from outside.
    pub(crate) fn gauges(&self) -> Gauges {
        let inner = self.inner.lock();
        let config = inner.config.as_ref();
        Gauges {
            configuration: config.map(|config| config.configuration.clone()),
            is_revision: config.is_some_and(|config| config.hop.is_revision()),
            is_limited: config.is_some_and(|config| config.concurrency > 0),
            waiting: u32::try_from(inner.waiting).unwrap_or(u32::MAX),
            in_flight: inner.meter.in_flight(),
        }
    }

    pub(crate) fn context(&self) -> &Arc<BreakerContext> {
        &self.context
    }
}

impl Inner {
    fn enter(&mut self, now: u64, proxied: bool) {
        match proxied {
            true => self.meter.enter_proxied(now),
            false => self.meter.enter(now),
        }
    }

    fn leave(&mut self, now: u64, proxied: bool) {
        match proxied {
            true => self.meter.leave_proxied(now),
            false => self.meter.leave(now),
        }
    }

    /// A slot on the container that the policy names, one that could not be connected to a moment ago only if need be.
    fn take(&mut self, now: u64) -> Option<(Arc<ClusterConfig>, Arc<Container>)> {
        let config = self.config.clone()?;
        let policy = Policy::for_concurrency(config.concurrency);
        let containers = &self.containers;
        let free = |at: usize| containers[at].free(config.concurrency);
        let at = self
            .cursor
            .pick(policy, containers.len(), |at| {
                free(at).filter(|_| !containers[at].is_unreachable(now))
            })
            .or_else(|| self.cursor.pick(policy, containers.len(), free))?;
        let container = containers[at].clone();
        container.acquire_slot();
        Some((config, container))
    }

    fn release_slot(&mut self, container: &Arc<Container>) {
        if container.release_slot() {
            self.draining
                .retain(|draining| !Arc::ptr_eq(draining, container));
        }
    }

    /// Gives no more slots on `gone`; those with requests stay known until the last of these has ended.
    fn drain(&mut self, gone: &[Arc<Container>]) {
        for container in gone {
            container.start_draining();
            if container.slots_in_use() > 0 {
                self.draining.push(container.clone());
            }
        }
    }

    /// A container that comes back to the endpoints before its last request has ended goes on with its count of slots;
    /// one whose pod is ending does not come back.
    fn revive(&mut self, endpoint: &Endpoint) -> Option<Arc<Container>> {
        let at = self
            .draining
            .iter()
            .position(|container| container.is(endpoint) && !container.is_terminating())?;
        let container = self.draining.swap_remove(at);
        container.stop_draining();
        Some(container)
    }

    /// No container takes requests.
    fn is_empty(&self) -> bool {
        self.containers
            .iter()
            .all(|container| container.is_draining())
    }

    fn enqueue(&mut self, first: bool) -> oneshot::Receiver<PendingSlot> {
        if self.waiters.len() > 2 * self.waiting + 64 {
            self.waiters.retain(|waiter| !waiter.is_closed());
        }
        let (sender, receiver) = oneshot::channel();
        if first {
            self.waiters.push_front(sender);
        } else {
            self.waiters.push_back(sender);
        }
        self.waiting += 1;
        receiver
    }

    /// Whether the autoscaler must be poked now: requests wait, no container takes any, and the last poke is old. Records the poke.
    fn wants_poke(&mut self, now: u64, options: &Options) -> bool {
        let asleep = self.waiting > 0
            && self
                .config
                .as_ref()
                .is_some_and(|config| config.hop.is_revision())
            && self.is_empty();
        if !asleep {
            if self.waiting == 0 {
                self.poked_at = None;
            }
            return false;
        }
        let due = self
            .poked_at
            .is_none_or(|at| u128::from(now.saturating_sub(at)) >= options.poke_again.as_nanos());
        if due {
            self.poked_at = Some(now);
        }
        due
    }
}

fn take_matching(
    containers: &mut Vec<Arc<Container>>,
    endpoint: &Endpoint,
) -> Option<Arc<Container>> {
    let at = containers
        .iter()
        .position(|container| container.is(endpoint))?;
    Some(containers.swap_remove(at))
}
