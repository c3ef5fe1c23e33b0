//! Everything the autoscaler knows, as one value that is stepped: reports in, desired scales out.
//!
//! Flow: the gateway's reports -> [`DeciderSet::report`]; each second -> [`DeciderSet::second`], which fills the
//! windows and lets each revision decide every other second; the PodAutoscaler reconciler registers what
//! it is responsible for with [`DeciderSet::ensure`] and reads the desired scale from its answer.
//! Always: no clock and no IO; what must be reconciled anew is returned, not called.
//!
//! A request that waits for a revision without pods ([`Report::Poke`]) is decided at once, not at the next tick.

mod reporters;

use std::collections::HashMap;
use std::time::Duration;

use kinglet_decide::feed::{Key, Report, Source, Stat};
use kinglet_decide::scale::target::Metric;
use kinglet_decide::scale::window::{Weighting, WindowPair};
use kinglet_decide::scale::{
    Autoscaler, DeciderSpec, Moment, ObservedMetrics, ScaleResult, autoscaler,
};
use reporters::{Load, Reporters};

/// A revision decides every other second, as Knative's `tick-interval`.
const SECONDS_PER_DECISION: u64 = 2;

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
    early: HashMap<Key, (Source, Moment)>,
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
    reporters: Reporters,
}

impl DeciderSet {
    /// Registers a PodAutoscaler or changes what it asks for. Answers with the present desired scale.
    pub fn ensure(&mut self, key: &Key, request: DeciderRequest, now: Moment) -> DesiredScale {
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(request, now));
        entry.adjust(request);
        if let Some((source, poked)) = self.early.remove(key)
            && now.since(poked) <= EARLY_POKE_KEPT
            && entry.desired_scale.desired.is_none_or(|pods| pods == 0)
        {
            entry.record_ahead(&source, Load::ONE_REQUEST, now);
            entry.decide(now);
        }
        entry.desired_scale
    }

    /// Forgets a PodAutoscaler that is gone. A request that waits for one that is still to come is not forgotten.
    pub fn remove(&mut self, key: &Key) {
        if self.entries.remove(key).is_some() {
            self.early.remove(key);
        }
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

    /// Takes a report. Answers with the revision to reconcile at once: if its desired scale changed, or if it is not known
    /// yet and a request waits for it. After a restart that one must not wait until thousands of others are registered.
    pub fn report(&mut self, report: Report, now: Moment) -> Option<Key> {
        match report {
            Report::Poke { revision, source } => self.poke(revision, source, now),
            Report::Stat {
                revision,
                source,
                stat,
            } => {
                let entry = self.entries.get_mut(&revision)?;
                entry.take(&source, &stat, now).then_some(revision)
            }
            Report::Gone { reporter } => {
                for entry in self.entries.values_mut() {
                    entry.reporters.forget(&reporter);
                }
                None
            }
        }
    }

    fn poke(&mut self, key: Key, source: Source, now: Moment) -> Option<Key> {
        let Some(entry) = self.entries.get_mut(&key) else {
            return self.remember_early(key, source, now);
        };
        if entry.desired_scale.desired.is_some_and(|pods| pods > 0) {
            return None;
        }
        entry.record_ahead(&source, Load::ONE_REQUEST, now);
        entry.decide(now).then_some(key)
    }

    /// Answers with the revision when it is the first poke of it.
    fn remember_early(&mut self, key: Key, source: Source, now: Moment) -> Option<Key> {
        if let Some(known) = self.early.get_mut(&key) {
            let is_news = now.since(known.1) > EARLY_POKE_KEPT;
            *known = (source, now);
            return is_news.then_some(key);
        }
        if self.early.len() >= EARLY_POKES_MAX {
            self.early
                .retain(|_, (_, at)| now.since(*at) <= EARLY_POKE_KEPT);
        }
        if self.early.len() >= EARLY_POKES_MAX {
            let oldest = self
                .early
                .iter()
                .min_by(|(key, (_, at)), (other, (_, then))| (at, key).cmp(&(then, other)));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.early.remove(&oldest);
            }
        }
        self.early.insert(key.clone(), (source, now));
        Some(key)
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
            reporters: Reporters::default(),
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

    /// Takes a report. Answers whether anybody must know.
    fn take(&mut self, source: &Source, stat: &Stat, now: Moment) -> bool {
        let load = Load::of(stat);
        let asleep = self.desired_scale.desired == Some(0);
        let Some(in_flight) = stat.in_flight else {
            // From another process, which has left out what it poked for: recorded into its second at once, as Knative
            // does, and never believed for longer.
            self.record(now.nearest_second(), load);
            return asleep && load.concurrency > 0.0 && self.decide(now);
        };
        self.reporters
            .take(source, stat, in_flight, now.nearest_second());
        if !asleep || (load.concurrency <= 0.0 && in_flight == 0) {
            return false;
        }
        self.record_ahead(source, load, now);
        self.decide(now)
    }

    fn record(&mut self, second: u64, load: Load) {
        self.concurrency.record(second, load.concurrency);
        self.requests.record(second, load.requests_per_second);
    }

    /// Counts load before its second is over, so that a decision can be made on it now.
    fn record_ahead(&mut self, source: &Source, load: Load, now: Moment) {
        let second = now.nearest_second();
        let more = self.reporters.ahead(source, load, second);
        self.record(second, more);
    }

    fn record_second(&mut self, second: u64) {
        // Pods that are up and not asked for anything count as "no load", as if each had been scraped. Without pods,
        // or where nobody would scrape because the gateway sees everything, silence is not recorded.
        match self.reporters.end_second(second) {
            Some(load) => self.record(second, load),
            None if self.request.ready > 0 && !self.always_buffered() => {
                self.record(second, Load::default())
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

#[cfg(test)]
#[path = "decider_set/tests.rs"]
mod tests;
