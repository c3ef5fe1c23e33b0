//! Everything the autoscaler knows, as one value that is stepped: reports in, desired scales out.
//!
//! Flow: the gateway's reports -> [`DeciderSet::report`]; each second -> [`DeciderSet::second`], which fills the
//! windows and lets each revision decide every other second; the PodAutoscaler reconciler registers what
//! it is responsible for with [`DeciderSet::ensure`] and reads the desired scale from its answer.
//! Always: no clock and no IO; what must be reconciled anew is returned, not called.
//!
//! A request that waits for a revision without pods ([`Report::Poke`]) is decided at once, not at the next tick.

use std::collections::HashMap;
use std::time::Duration;

use kinglet_decide::feed::{Key, Report, Stat};
use kinglet_decide::scale::target::Metric;
use kinglet_decide::scale::window::{Weighting, WindowPair};
use kinglet_decide::scale::{
    Autoscaler, DeciderSpec, Moment, ObservedMetrics, ScaleResult, autoscaler,
};

/// A revision decides every other second, as Knative's `tick-interval`.
const SECONDS_PER_DECISION: u64 = 2;

/// A gateway that reported load and then nothing is believed this long.
const REPORT_BELIEVED_SECONDS: u64 = 3;

/// Pokes kept for revisions whose PodAutoscaler is not known yet; past it, the oldest go. After a restart
/// every sleeping revision can be asked for at once; each waiting request pokes again when it is lost.
const EARLY_POKES_MAX: usize = 4096;

/// How long such a poke counts.
const EARLY_POKE_KEPT: Duration = Duration::from_secs(60);

/// What a PodAutoscaler asks of the set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeciderRequest {
    /// How to decide.
    pub policy: DeciderSpec,
    /// What to count.
    pub metric: Metric,
    /// How seconds are weighed.
    pub weighting: Weighting,
    /// Stable window, in seconds.
    pub stable_s: u32,
    /// Panic window, in seconds.
    pub panic_s: u32,
    /// Ready pods now.
    pub ready: u32,
}

/// What the autoscaler wants for one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredScale {
    /// Pods; `None` until something was measured.
    pub desired: Option<u32>,
    /// Negative: the buffer must stay in the path.
    pub excess_burst_capacity: i32,
}

/// The state of every revision's autoscaling.
#[derive(Debug, Default)]
pub struct DeciderSet {
    entries: HashMap<Key, Entry>,
    early: HashMap<Key, Moment>,
}

#[derive(Debug)]
struct Entry {
    request: DeciderRequest,
    autoscaler: Autoscaler,
    concurrency: WindowPair,
    requests: WindowPair,
    desired_scale: DesiredScale,
    /// Second of creation; decisions fall on every other second after it.
    born: u64,
    /// What was reported since the last second, and how often.
    fresh: Option<(Stat, u32)>,
    /// The last report and its second.
    last: Option<(Stat, u64)>,
    /// Already recorded ahead of the second's report.
    ahead: Stat,
}

impl DeciderSet {
    /// Registers a PodAutoscaler or changes what it asks for. Answers with the present desired scale.
    pub fn ensure(&mut self, key: &Key, request: DeciderRequest, now: Moment) -> DesiredScale {
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(request, now));
        entry.adjust(request);
        if let Some(poked) = self.early.remove(key)
            && now.since(poked) <= EARLY_POKE_KEPT
            && entry.desired_scale.desired.is_none_or(|pods| pods == 0)
        {
            entry.record_ahead(ONE_REQUEST, now);
            entry.decide(now);
        }
        entry.desired_scale
    }

    /// Forgets a PodAutoscaler that is gone.
    pub fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
        self.early.remove(key);
    }

    /// The present desired scale of a revision, if it is registered.
    pub fn desired_scale(&self, key: &Key) -> Option<DesiredScale> {
        self.entries.get(key).map(|entry| entry.desired_scale)
    }

    /// How many revisions are registered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a report. Answers with the revision to reconcile at once, if its desired scale changed.
    pub fn report(&mut self, report: Report, now: Moment) -> Option<Key> {
        match report {
            Report::Poke(key) => self.poke(key, now),
            Report::Stat(key, stat) => {
                let entry = self.entries.get_mut(&key)?;
                let (sum, count) = entry.fresh.unwrap_or_default();
                entry.fresh = Some((add(sum, stat), count.saturating_add(1)));
                entry.last = Some((stat, now.nearest_second()));
                let asleep = entry.desired_scale.desired == Some(0);
                if !asleep || (stat.average_concurrent_requests <= 0.0 && stat.in_flight == 0) {
                    return None;
                }
                entry.record_ahead(stat, now);
                entry.decide(now).then_some(key)
            }
        }
    }

    fn poke(&mut self, key: Key, now: Moment) -> Option<Key> {
        let Some(entry) = self.entries.get_mut(&key) else {
            self.remember_early(key, now);
            return None;
        };
        if entry.desired_scale.desired.is_some_and(|pods| pods > 0) {
            return None;
        }
        entry.record_ahead(ONE_REQUEST, now);
        entry.decide(now).then_some(key)
    }

    fn remember_early(&mut self, key: Key, now: Moment) {
        if self.early.len() >= EARLY_POKES_MAX && !self.early.contains_key(&key) {
            self.early.retain(|_, at| now.since(*at) <= EARLY_POKE_KEPT);
            let oldest = self
                .early
                .iter()
                .min_by_key(|(key, at)| (**at, (*key).clone()))
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| self.early.len() >= EARLY_POKES_MAX) {
                self.early.remove(&oldest);
            }
        }
        self.early.insert(key, now);
    }

    /// One second is over: fills the windows and lets those decide whose turn it is. Answers with the
    /// revisions to reconcile, sorted.
    pub fn second(&mut self, now: Moment) -> Vec<Key> {
        let second = now.nearest_second();
        let mut changed: Vec<Key> = Vec::new();
        for (key, entry) in &mut self.entries {
            entry.record_second(second);
            let turn =
                second > entry.born && (second - entry.born).is_multiple_of(SECONDS_PER_DECISION);
            if turn && entry.decide(now) {
                changed.push(key.clone());
            }
        }
        changed.sort_unstable();
        changed
    }
}

/// What a poke is worth: one request, here and now.
const ONE_REQUEST: Stat = Stat {
    average_concurrent_requests: 1.0,
    requests_per_second: 1.0,
    in_flight: 1,
};

impl Entry {
    fn new(request: DeciderRequest, now: Moment) -> Self {
        let windows = || WindowPair::new(request.weighting, request.stable_s, request.panic_s);
        Self {
            request,
            autoscaler: Autoscaler::new(&request.policy, request.ready, now),
            concurrency: windows(),
            requests: windows(),
            desired_scale: DesiredScale {
                desired: None,
                excess_burst_capacity: autoscaler::initial_burst_capacity(&request.policy),
            },
            born: now.nearest_second(),
            fresh: None,
            last: None,
            ahead: Stat::default(),
        }
    }

    fn adjust(&mut self, request: DeciderRequest) {
        if request.weighting != self.request.weighting {
            // Sums of another weighting mean nothing here.
            self.concurrency =
                WindowPair::new(request.weighting, request.stable_s, request.panic_s);
            self.requests = self.concurrency.clone();
        } else {
            self.concurrency.resize(request.stable_s, request.panic_s);
            self.requests.resize(request.stable_s, request.panic_s);
        }
        self.request = request;
    }

    fn record(&mut self, second: u64, stat: Stat) {
        self.concurrency
            .record(second, stat.average_concurrent_requests);
        self.requests.record(second, stat.requests_per_second);
    }

    /// Counts load before its second is over, so that a decision can be made on it now.
    fn record_ahead(&mut self, stat: Stat, now: Moment) {
        let more = beyond(stat, self.ahead);
        self.record(now.nearest_second(), more);
        self.ahead = add(self.ahead, more);
    }

    fn record_second(&mut self, second: u64) {
        let seen = match self.fresh.take() {
            Some((sum, count)) => Some(divide(sum, count)),
            // One report fell into the neighbouring second: the load did not vanish for a moment.
            None => self
                .last
                .filter(|(stat, at)| {
                    stat.in_flight > 0 && second.saturating_sub(*at) <= REPORT_BELIEVED_SECONDS
                })
                .map(|(stat, _)| stat),
        };
        let ahead = std::mem::take(&mut self.ahead);
        // Pods that are up and not asked for anything count as "no load", as if each had been scraped. Without pods,
        // or where nobody would scrape because the gateway sees everything, silence is not recorded.
        match seen {
            Some(stat) => self.record(second, beyond(stat, ahead)),
            None if self.request.ready > 0 && !self.always_buffered() => {
                self.record(second, Stat::default())
            }
            None => {}
        }
    }

    fn always_buffered(&self) -> bool {
        self.request.policy.target_burst_capacity < 0.0
    }

    /// Decides; answers whether anybody must know.
    fn decide(&mut self, now: Moment) -> bool {
        let windows = match self.request.metric {
            Metric::Concurrency => &self.concurrency,
            Metric::Rps => &self.requests,
        };
        let averages = windows.averages(now.nearest_second());
        // Where all traffic is known to pass the gateway, silence is an answer; else it is none.
        let averages = averages.or(self.always_buffered().then_some((0.0, 0.0)));
        let Some((stable, panic)) = averages else {
            return false;
        };
        let seen = ObservedMetrics {
            ready: self.request.ready,
            stable,
            panic,
        };
        let ScaleResult {
            desired,
            excess_burst_capacity,
        } = self.autoscaler.decide(&self.request.policy, seen, now);
        let desired_scale = DesiredScale {
            desired: Some(desired),
            excess_burst_capacity,
        };
        let before = std::mem::replace(&mut self.desired_scale, desired_scale);
        before.desired != desired_scale.desired
            || (before.excess_burst_capacity < 0) != (desired_scale.excess_burst_capacity < 0)
    }
}

fn add(left: Stat, right: Stat) -> Stat {
    Stat {
        average_concurrent_requests: left.average_concurrent_requests
            + right.average_concurrent_requests,
        requests_per_second: left.requests_per_second + right.requests_per_second,
        in_flight: right.in_flight,
    }
}

fn divide(sum: Stat, count: u32) -> Stat {
    let count = f64::from(count.max(1));
    Stat {
        average_concurrent_requests: sum.average_concurrent_requests / count,
        requests_per_second: sum.requests_per_second / count,
        in_flight: sum.in_flight,
    }
}

/// What `stat` says beyond what was counted already.
fn beyond(stat: Stat, counted: Stat) -> Stat {
    Stat {
        average_concurrent_requests: (stat.average_concurrent_requests
            - counted.average_concurrent_requests)
            .max(0.0),
        requests_per_second: (stat.requests_per_second - counted.requests_per_second).max(0.0),
        in_flight: stat.in_flight,
    }
}

#[cfg(test)]
#[path = "decider_set/tests.rs"]
mod tests;
