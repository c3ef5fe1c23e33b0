//! What each reporter of a revision said: a gateway about its own requests, an activator about those it forwards, the
//! scraper about the queue-proxies.
//!
//! Loads of several reporters add up (spec/serving.md 5.1): each saw other requests, and what an activator forwarded a
//! queue-proxy takes out of its own figures ([`Stat::average_proxied_concurrent_requests`]).

use std::collections::BTreeMap;
use std::ops::AddAssign;

use kinglet_decide::feed::{Source, Stat};

/// A reporter in this process that reported load and then nothing is believed this long.
const REPORT_BELIEVED_SECONDS: u64 = 3;

/// Reporters of one revision: 20 activators, and the pods that are scraped in one round. Past it, the one that has been
/// silent for longest is forgotten.
const SOURCES_MAX: usize = 256;

/// What a revision has to do, without requests that another reporter counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    pub(super) concurrency: f64,
    pub(super) requests_per_second: f64,
}

impl Load {
    /// One request, here and now: what a poke is worth.
    pub(super) const ONE_REQUEST: Self = Self {
        concurrency: 1.0,
        requests_per_second: 1.0,
    };

    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            concurrency: (stat.average_concurrent_requests
                - stat.average_proxied_concurrent_requests)
                .max(0.0),
            requests_per_second: (stat.request_count - stat.proxied_request_count).max(0.0),
        }
    }

    /// What this says beyond what was counted already.
    fn beyond(self, counted: Self) -> Self {
        Self {
            concurrency: (self.concurrency - counted.concurrency).max(0.0),
            requests_per_second: (self.requests_per_second - counted.requests_per_second).max(0.0),
        }
    }

    fn mean_of(self, count: u32) -> Self {
        let count = f64::from(count.max(1));
        Self {
            concurrency: self.concurrency / count,
            requests_per_second: self.requests_per_second / count,
        }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.concurrency += other.concurrency;
        self.requests_per_second += other.requests_per_second;
    }
}

/// The reporters of one revision.
#[derive(Debug, Default)]
pub(super) struct Reporters {
    by_source: BTreeMap<Source, Reported>,
}

#[derive(Debug, Default)]
struct Reported {
    /// Reported since the last second, and how often: a report that slips into the next second makes two of them.
    fresh: Option<(Load, u32)>,
    /// The last report of a reporter that had requests under way then.
    busy: Option<Load>,
    /// Already recorded ahead of the second's report.
    ahead: Load,
    heard_at: u64,
}

impl Reporters {
    /// Takes what `source` counted over about a second.
    pub(super) fn take(&mut self, source: &Source, stat: &Stat, in_flight: u32, second: u64) {
        let reported = self.entry(source, second);
        let (mut sum, count) = reported.fresh.unwrap_or_default();
        let load = Load::of(stat);
        sum += load;
        reported.fresh = Some((sum, count.saturating_add(1)));
        reported.busy = (in_flight > 0).then_some(load);
    }

    /// Counts `load` before the second of `source` is over. Answers with what was not counted yet.
    pub(super) fn ahead(&mut self, source: &Source, load: Load, second: u64) -> Load {
        let reported = self.entry(source, second);
        let more = load.beyond(reported.ahead);
        reported.ahead += more;
        more
    }

    /// What all reporters saw in the second that is over, without what was counted ahead; `None` when none spoke.
    pub(super) fn end_second(&mut self, second: u64) -> Option<Load> {
        let mut all: Option<Load> = None;
        self.by_source.retain(|_, reported| {
            let ahead = std::mem::take(&mut reported.ahead);
            let believed = second.saturating_sub(reported.heard_at) <= REPORT_BELIEVED_SECONDS;
            let seen = match reported.fresh.take() {
                Some((sum, count)) => Some(sum.mean_of(count)),
                // One report fell into the neighbouring second: the load did not vanish for a moment.
                None => reported.busy.filter(|_| believed),
            };
            if let Some(seen) = seen {
                *all.get_or_insert_default() += seen.beyond(ahead);
            }
            believed
        });
        all
    }

    /// Nothing that a reporter said is believed any longer than it was said.
    pub(super) fn forget(&mut self, reporter: &str) {
        self.by_source
            .retain(|source, _| &*source.reporter != reporter);
    }

    fn entry(&mut self, source: &Source, second: u64) -> &mut Reported {
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(source) {
            let silent = self
                .by_source
                .iter()
                .min_by_key(|(_, reported)| reported.heard_at)
                .map(|(source, _)| source.clone());
            if let Some(silent) = silent {
                self.by_source.remove(&silent);
            }
        }
        let reported = self.by_source.entry(source.clone()).or_default();
        reported.heard_at = second;
        reported
    }
}
