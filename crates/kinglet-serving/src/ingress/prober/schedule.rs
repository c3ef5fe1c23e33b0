//! Which probe is due when, and where each Ingress stands: no IO, time is handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::feed::Key;
use tokio::time::Instant;

use super::super::publish::PATIENCE;

/// Before the first probe: a gateway needs a moment (Knative's).
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Wait before the first retry, doubled for each one more (Knative's).
const RETRY: Duration = Duration::from_millis(50);
/// Longest wait (Knative's).
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Probes per second, and how many may be made up for after a rest (Knative's).
const PER_SECOND: f64 = 50.0;
const BURST: f64 = 100.0;

/// A host to ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ingress) struct Target {
    pub(in crate::ingress) host: Arc<str>,
    pub(in crate::ingress) tls: bool,
}

/// Where an Ingress stands with the probed gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingress) enum Standing {
    /// All serve it.
    Ready,
    /// There is no gateway.
    NoGateways,
    /// They are being asked.
    Asked,
    /// So they are, for unusually long; these do not serve it, and why.
    Stalled(Vec<String>),
}

/// One probe.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) at: SocketAddr,
    pub(super) target: Target,
    pub(super) hash: Arc<str>,
    key: Key,
    /// Number of its set.
    set: u64,
    attempt: u32,
}

/// The probes of one Ingress.
struct Probes {
    hash: Arc<str>,
    set: u64,
    since: Instant,
    /// What is not ready, with what was answered last.
    pending: BTreeMap<(SocketAddr, Target), String>,
    /// Who is asked; empty when there was no gateway.
    asked: BTreeSet<SocketAddr>,
}

#[derive(Default)]
pub(super) struct Schedule {
    addresses: BTreeSet<SocketAddr>,
    probes: HashMap<Key, Probes>,
    due: BTreeMap<(Instant, u64), Item>,
    sets: u64,
    items: u64,
}

impl Schedule {
    pub(super) fn new(addresses: BTreeSet<SocketAddr>) -> Self {
        Self {
            addresses,
            ..Self::default()
        }
    }

    /// Tells where an Ingress stands, and whether probes began now.
    pub(super) fn standing(
        &mut self,
        key: &Key,
        hash: &str,
        targets: &[Target],
        now: Instant,
    ) -> (Standing, bool) {
        if let Some(probes) = self.probes.get(key).filter(|probes| *probes.hash == *hash) {
            return (probes.standing(now), false);
        }
        self.forget(key);
        self.sets += 1;
        let hash: Arc<str> = hash.into();
        let mut pending = BTreeMap::new();
        for at in self.addresses.clone() {
            for target in targets {
                let item = Item {
                    at,
                    target: target.clone(),
                    hash: Arc::clone(&hash),
                    key: key.clone(),
                    set: self.sets,
                    attempt: 0,
                };
                if pending
                    .insert((at, target.clone()), "it was not asked yet".to_owned())
                    .is_none()
                {
                    self.put(now + FIRST_DELAY, item);
                }
            }
        }
        let probes = Probes {
            hash,
            set: self.sets,
            since: now,
            pending,
            asked: self.addresses.clone(),
        };
        let standing = probes.standing(now);
        self.probes.insert(key.clone(), probes);
        (standing, true)
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if self.probes.remove(key).is_some() {
            self.due.retain(|_, item| item.key != *key);
        }
    }

    fn put(&mut self, at: Instant, item: Item) {
        self.items += 1;
        self.due.insert((at, self.items), item);
    }

    /// When the next probe is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// The probe that is due first.
    pub(super) fn take(&mut self) -> Option<Item> {
        self.due.pop_first().map(|(_, item)| item)
    }

    /// Takes an answer. Answers with the Ingress when it is ready now.
    pub(super) fn answered(
        &mut self,
        mut item: Item,
        verdict: Result<(), String>,
        now: Instant,
    ) -> Option<Key> {
        let probes = self.probes.get_mut(&item.key)?;
        let place = (item.at, item.target.clone());
        let last = probes
            .pending
            .get_mut(&place)
            .filter(|_| probes.set == item.set)?;
        if let Err(why) = verdict {
            *last = why;
            let wait = RETRY
                .saturating_mul(1 << item.attempt.min(16))
                .min(RETRY_MAX);
            item.attempt += 1;
            self.put(now + wait, item);
            return None;
        }
        probes.pending.remove(&place);
        (probes.pending.is_empty() && !probes.asked.is_empty()).then_some(item.key)
    }

    /// Takes other gateways. Answers with the Ingresses to look at again.
    pub(super) fn moved(&mut self, addresses: BTreeSet<SocketAddr>) -> Vec<Key> {
        self.addresses = addresses;
        let addresses = &self.addresses;
        self.due.retain(|_, item| addresses.contains(&item.at));
        let mut changed = Vec::new();
        self.probes.retain(|key, probes| {
            let was_ready = probes.pending.is_empty() && !probes.asked.is_empty();
            if was_ready {
                return true;
            }
            probes.pending.retain(|(at, _), _| addresses.contains(at));
            if probes.pending.is_empty() {
                changed.push(key.clone());
                // Ready if one that stays has answered; where all are new, or nobody is left, they are asked anew.
                return !probes.asked.is_disjoint(addresses);
            }
            true
        });
        changed.sort_unstable();
        changed
    }
}

impl Probes {
    fn standing(&self, now: Instant) -> Standing {
        if self.asked.is_empty() {
            return Standing::NoGateways;
        }
        if self.pending.is_empty() {
            return Standing::Ready;
        }
        if now.saturating_duration_since(self.since) < PATIENCE {
            return Standing::Asked;
        }
        let mut by_gateway: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for ((at, target), why) in &self.pending {
            let words = || format!("{at} ({}: {why})", target.host);
            by_gateway.entry(*at).or_insert_with(words);
        }
        Standing::Stalled(by_gateway.into_values().collect())
    }
}

/// Lets so many probes through per second.
pub(super) struct RateLimit {
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(super) fn full(now: Instant) -> Self {
        Self {
            tokens: BURST,
            at: now,
        }
    }

    /// From when on one more may go.
    pub(super) fn next_at(&mut self, now: Instant) -> Instant {
        let rested = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + rested * PER_SECOND).min(BURST);
        self.at = now;
        now + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / PER_SECOND)
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.next_at(now);
        self.tokens -= 1.0;
    }
}
