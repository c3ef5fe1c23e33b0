//! Where requests for one backend get a seat or wait for one: activator and breaker in one place.
//!
//! Guarantees: containers never hold more requests than their limit; waiting requests are seated in the order they
//! came; a seat or a place in the queue is given back however its holder ends; while somebody waits and no container is
//! open, the autoscaler has been poked.
//! Assumes: `now` (from [`Wiring`]) does not go back.
//! One short lock per arrival and per departure; no lock is held across an await, and nothing is dropped under it that
//! would take it again.

mod container;
mod ticket;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::balance::{Cursor, Policy};
use kinglet_decide::feed::{Key, Protocol, Report, RevisionBackend, Stat};
use kinglet_decide::meter::Meter;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use container::Container;
pub(crate) use ticket::{Grant, Ticket, Visit};

use crate::options::Options;

/// How long a container that could not be connected to is tried only when nothing else is free.
const SUSPECT: Duration = Duration::from_millis(250);

/// What all lobbies share: clock, options and the way to the control plane.
pub(crate) struct Wiring {
    pub(crate) options: Options,
    epoch: Instant,
    reports: mpsc::Sender<Report>,
    /// Pokes that found the channel full; the reporter delivers them.
    owed: Mutex<Vec<Key>>,
    pub(crate) owes: Notify,
}

impl Wiring {
    pub(crate) fn new(options: Options, reports: mpsc::Sender<Report>) -> Self {
        Self {
            options,
            epoch: Instant::now(),
            reports,
            owed: Mutex::default(),
            owes: Notify::new(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn poke(&self, key: &Key) {
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.reports.try_send(Report::Poke(key.clone()))
        {
            let mut owed = self.owed.lock();
            if !owed.contains(key) {
                owed.push(key.clone());
            }
            self.owes.notify_one();
        }
    }

    pub(crate) fn take_owed(&self) -> Vec<Key> {
        std::mem::take(&mut self.owed.lock())
    }

    pub(crate) fn reports(&self) -> &mpsc::Sender<Report> {
        &self.reports
    }
}

/// What a request must know about its backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// A Revision (metered, woken from zero) rather than an ordinary Service.
    pub(crate) revision: bool,
    pub(crate) concurrency: u32,
    pub(crate) timeout: Duration,
    pub(crate) response_start: Duration,
    pub(crate) idle: Duration,
    pub(crate) protocol: Protocol,
}

impl Facts {
    pub(crate) fn of(backend: &RevisionBackend) -> Self {
        Self {
            revision: true,
            concurrency: backend.container_concurrency,
            timeout: backend.timeout,
            response_start: backend.response_start_timeout,
            idle: backend.idle_timeout,
            protocol: backend.protocol,
        }
    }

    pub(crate) fn of_service(protocol: Protocol) -> Self {
        Self {
            revision: false,
            concurrency: 0,
            timeout: Duration::ZERO,
            response_start: Duration::ZERO,
            idle: Duration::ZERO,
            protocol,
        }
    }
}

/// The answer to a request that asks for a seat.
pub(crate) enum Entered {
    /// Go ahead.
    Seated(Visit),
    /// Await the ticket.
    Waiting(Ticket),
    /// Too many wait already.
    Full,
}

/// One backend: its containers and those who want in.
pub(crate) struct Lobby {
    key: Key,
    wiring: Arc<Wiring>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` until an update describes the backend, and after one has forgotten it.
    facts: Option<Arc<Facts>>,
    containers: Vec<Arc<Container>>,
    /// Longest waiting first. Those who gave up stay until they are passed over.
    waiters: VecDeque<oneshot::Sender<Grant>>,
    /// Waiters that still wait.
    waiting: usize,
    cursor: Cursor,
    meter: Meter,
    poked_at: Option<u64>,
}

impl Lobby {
    pub(crate) fn new(key: Key, wiring: Arc<Wiring>) -> Arc<Self> {
        let now = wiring.now();
        let seed = now
            ^ key
                .name
                .bytes()
                .fold(0x9e37_79b9_7f4a_7c15, |seed: u64, byte| {
                    seed.rotate_left(7) ^ u64::from(byte)
                });
        Arc::new(Self {
            key,
            wiring,
            inner: Mutex::new(Inner {
                facts: None,
                containers: Vec::new(),
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

    /// A seat, a place in the queue, or neither.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        if inner.waiting == 0
            && let Some((facts, container)) = inner.take(now)
        {
            inner.meter.enter(now);
            drop(inner);
            return Entered::Seated(Visit::new(self.clone(), facts, container));
        }
        if inner.waiting >= self.wiring.options.queue_depth {
            return Entered::Full;
        }
        inner.meter.enter(now);
        let receiver = inner.line_up(false);
        let facts = inner.facts.clone();
        let cold = inner.is_empty();
        let poke = inner.wants_poke(now, &self.wiring.options);
        drop(inner);
        if poke {
            self.wiring.poke(&self.key);
        }
        Entered::Waiting(Ticket::new(self.clone(), facts, cold, receiver))
    }

    /// For a request whose container could not be reached: another seat, or a place at the head of the queue.
    fn enter_again(self: &Arc<Self>, unreachable: &Arc<Container>) -> Entered {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        unreachable.suspect_until(now + SUSPECT.as_nanos() as u64);
        unreachable.vacate();
        // Before those who wait: it came earlier. They lose nothing, since there was no other free slot for them.
        if let Some((facts, container)) = inner.take(now) {
            drop(inner);
            return Entered::Seated(Visit::new(self.clone(), facts, container));
        }
        let receiver = inner.line_up(true);
        let facts = inner.facts.clone();
        let cold = inner.is_empty();
        let poke = inner.wants_poke(now, &self.wiring.options);
        drop(inner);
        if poke {
            self.wiring.poke(&self.key);
        }
        Entered::Waiting(Ticket::new(self.clone(), facts, cold, receiver))
    }

    /// A request ended: frees its slot, if it had one, for the next in the queue.
    fn leave(self: &Arc<Self>, container: Option<&Arc<Container>>) {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        inner.meter.leave(now);
        if let Some(container) = container {
            container.vacate();
            if inner.waiting > 0 {
                self.seat_waiters(&mut inner, now);
            }
        }
    }

    /// A slot that was granted but not taken.
    fn give_back(self: &Arc<Self>, container: &Arc<Container>) {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        container.vacate();
        self.seat_waiters(&mut inner, now);
    }

    /// Seats as many of the waiting as there are slots.
    fn seat_waiters(self: &Arc<Self>, inner: &mut Inner, now: u64) {
        while inner.waiting > 0 {
            let Some((facts, container)) = inner.take(now) else {
                return;
            };
            let mut grant = Grant::new(self.clone(), facts, container);
            loop {
                let Some(waiter) = inner.waiters.pop_front() else {
                    // Cannot be while somebody waits; give the slot back rather than trust it.
                    if let Some(container) = grant.disarm() {
                        container.vacate();
                    }
                    inner.waiting = 0;
                    return;
                };
                match waiter.send(grant) {
                    Ok(()) => {
                        inner.waiting -= 1;
                        break;
                    }
                    Err(refused) => grant = refused,
                }
            }
        }
        inner.poked_at = None;
    }

    /// Takes over what the control plane says. Containers that stay keep their connections and requests.
    pub(crate) fn describe(
        self: &Arc<Self>,
        facts: Facts,
        endpoints: &[kinglet_decide::feed::Endpoint],
    ) {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        if inner.facts.as_deref() != Some(&facts) {
            inner.facts = Some(Arc::new(facts));
        }
        let mut gone = std::mem::take(&mut inner.containers);
        for endpoint in endpoints {
            let kept = gone
                .iter()
                .position(|container| container.is(endpoint))
                .map(|at| gone.swap_remove(at));
            inner
                .containers
                .push(kept.unwrap_or_else(|| Arc::new(Container::new(endpoint))));
        }
        for container in &gone {
            container.close();
        }
        self.seat_waiters(&mut inner, now);
        let poke = inner.wants_poke(now, &self.wiring.options);
        drop(inner);
        gone.iter().for_each(|container| container.hang_up());
        if poke {
            self.wiring.poke(&self.key);
        }
    }

    /// Nobody knows this backend any more: its containers close, and the waiting look elsewhere.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.facts = None;
        let gone = std::mem::take(&mut inner.containers);
        // Under the lock, so that a ticket dropped meanwhile does not count itself out a second time.
        inner.waiters.clear();
        inner.waiting = 0;
        for container in &gone {
            container.close();
        }
        drop(inner);
        gone.iter().for_each(|container| container.hang_up());
    }

    /// Gives no more seats on containers of `ip`; answers those containers.
    pub(crate) fn close_address(&self, ip: IpAddr) -> Vec<Arc<Container>> {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        let closed: Vec<_> = inner
            .containers
            .iter()
            .filter(|container| container.address.ip() == ip)
            .cloned()
            .collect();
        for container in &closed {
            container.close();
        }
        let poke = !closed.is_empty() && inner.wants_poke(now, &self.wiring.options);
        drop(inner);
        closed.iter().for_each(|container| container.hang_up());
        if poke {
            self.wiring.poke(&self.key);
        }
        closed
    }

    /// Once a second: what to report, another poke where one is due, and idle connections that are too old.
    pub(crate) fn tick(&self) -> Option<Stat> {
        let now = self.wiring.now();
        let mut inner = self.inner.lock();
        let poke = inner.wants_poke(now, &self.wiring.options);
        let stat = inner
            .meter
            .report(now)
            .filter(|_| inner.facts.as_ref().is_some_and(|facts| facts.revision));
        let containers = inner.containers.clone();
        drop(inner);
        if poke {
            self.wiring.poke(&self.key);
        }
        containers
            .iter()
            .for_each(|container| container.sweep(&self.wiring.options));
        stat
    }

    /// Requests in flight, waiting ones included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.inner.lock().meter.in_flight()
    }

    pub(crate) fn wiring(&self) -> &Arc<Wiring> {
        &self.wiring
    }
}

impl Inner {
    /// A slot on the container that the policy names, one that could not be connected to a moment ago only if need be.
    fn take(&mut self, now: u64) -> Option<(Arc<Facts>, Arc<Container>)> {
        let facts = self.facts.clone()?;
        let policy = Policy::for_concurrency(facts.concurrency);
        let containers = &self.containers;
        let free = |at: usize| containers[at].free(facts.concurrency);
        let at = self
            .cursor
            .pick(policy, containers.len(), |at| {
                free(at).filter(|_| !containers[at].is_suspect(now))
            })
            .or_else(|| self.cursor.pick(policy, containers.len(), free))?;
        let container = containers[at].clone();
        container.occupy();
        Some((facts, container))
    }

    /// No container takes requests.
    fn is_empty(&self) -> bool {
        self.containers
            .iter()
            .all(|container| container.is_closing())
    }

    fn line_up(&mut self, first: bool) -> oneshot::Receiver<Grant> {
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

    /// Somebody waits for a Revision with no open container, and nobody was told lately. Notes that now somebody is.
    fn wants_poke(&mut self, now: u64, options: &Options) -> bool {
        let asleep = self.waiting > 0
            && self.facts.as_ref().is_some_and(|facts| facts.revision)
            && self.is_empty();
        if !asleep {
            if self.waiting == 0 {
                self.poked_at = None;
            }
            return false;
        }
        let due = self
            .poked_at
            .is_none_or(|at| now.saturating_sub(at) >= options.poke_again.as_nanos() as u64);
        if due {
            self.poked_at = Some(now);
        }
        due
    }
}
