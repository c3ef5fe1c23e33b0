//! Time-weighted concurrency of one Revision (spec/serving.md 5.1).
//!
//! Flow: the data plane calls [`Meter::enter`] and [`Meter::leave`] for each request -> [`Meter::report`] once a second.
//! Always: a request counts from arrival to the end of its answer, waiting included; times are arguments and never go back.

use crate::feed::Stat;

/// Counts requests and the time they spend.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    in_flight: u32,
    arrivals: u32,
    proxied: Proxied,
    /// Sum over time of requests in flight, in request-nanoseconds, since `period_start`.
    weighted: u128,
    changed_at: u64,
    period_start: u64,
    /// The last report was not all zeros, so one of zeros is still owed.
    owes_zero: bool,
}

/// The part of it all that came through an activator, which counts it, too.
#[derive(Clone, Copy, Debug, Default)]
struct Proxied {
    in_flight: u32,
    arrivals: u32,
    weighted: u128,
}

impl Meter {
    /// A meter that starts at `now` (nanoseconds of any clock that does not go back).
    pub fn new(now: u64) -> Self {
        Self {
            changed_at: now,
            period_start: now,
            ..Self::default()
        }
    }

    /// A request arrived.
    pub fn enter(&mut self, now: u64) {
        self.advance(now);
        self.in_flight += 1;
        self.arrivals += 1;
    }

    /// A request ended.
    pub fn leave(&mut self, now: u64) {
        self.advance(now);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A request arrived that an activator counts, too.
    pub fn enter_proxied(&mut self, now: u64) {
        self.enter(now);
        self.proxied.in_flight += 1;
        self.proxied.arrivals += 1;
    }

    /// Such a request ended.
    pub fn leave_proxied(&mut self, now: u64) {
        self.leave(now);
        self.proxied.in_flight = self.proxied.in_flight.saturating_sub(1);
    }

    /// Requests in flight, waiting ones included.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What happened since the last report; `None` when there is nothing new to say: no traffic, and zero was reported.
    pub fn report(&mut self, now: u64) -> Option<Stat> {
        self.advance(now);
        let elapsed = now.saturating_sub(self.period_start);
        if elapsed == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "an average; it is good to the 52 bits of an `f64`"
        )]
        let stat = Stat {
            average_concurrent_requests: self.weighted as f64 / elapsed as f64,
            average_proxied_concurrent_requests: self.proxied.weighted as f64 / elapsed as f64,
            request_count: f64::from(self.arrivals) * 1e9 / elapsed as f64,
            proxied_request_count: f64::from(self.proxied.arrivals) * 1e9 / elapsed as f64,
            process_uptime: 0.0,
            in_flight: Some(self.in_flight),
        };
        let quiet = self.weighted == 0 && self.arrivals == 0 && self.in_flight == 0;
        self.weighted = 0;
        self.arrivals = 0;
        self.proxied.weighted = 0;
        self.proxied.arrivals = 0;
        self.period_start = now;
        let owed = std::mem::replace(&mut self.owes_zero, !quiet);
        (!quiet || owed).then_some(stat)
    }

    fn advance(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.changed_at);
        self.weighted += u128::from(elapsed) * u128::from(self.in_flight);
        self.proxied.weighted += u128::from(elapsed) * u128::from(self.proxied.in_flight);
        self.changed_at = self.changed_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn half_a_second_of_two_is_one() {
        let mut meter = Meter::new(0);
        meter.enter(0);
        meter.enter(SECOND / 4);
        meter.leave(SECOND / 2);
        meter.leave(SECOND * 3 / 4);
        let stat = meter.report(SECOND).expect("traffic");
        assert_eq!(
            stat,
            Stat {
                average_concurrent_requests: 1.0,
                request_count: 2.0,
                in_flight: Some(0),
                ..Stat::default()
            }
        );
        assert_eq!(
            meter.report(2 * SECOND),
            Some(Stat {
                in_flight: Some(0),
                ..Stat::default()
            }),
            "one final zero"
        );
        assert_eq!(meter.report(3 * SECOND), None);
    }

    #[test]
    fn a_long_request_is_reported_every_time() {
        let mut meter = Meter::new(0);
        meter.enter(SECOND / 2);
        assert_eq!(
            meter
                .report(SECOND)
                .map(|stat| stat.average_concurrent_requests),
            Some(0.5)
        );
        let stat = meter.report(2 * SECOND).expect("still there");
        assert_eq!(
            stat,
            Stat {
                average_concurrent_requests: 1.0,
                in_flight: Some(1),
                ..Stat::default()
            }
        );
    }

    #[test]
    fn the_part_that_an_activator_counts_is_told_apart() {
        let mut meter = Meter::new(0);
        meter.enter_proxied(0);
        meter.enter(SECOND / 2);
        meter.leave(SECOND);
        let stat = meter.report(SECOND).expect("traffic");
        assert_eq!(
            stat,
            Stat {
                average_concurrent_requests: 1.5,
                average_proxied_concurrent_requests: 1.0,
                request_count: 2.0,
                proxied_request_count: 1.0,
                process_uptime: 0.0,
                in_flight: Some(1),
            }
        );
        meter.leave_proxied(2 * SECOND);
        let stat = meter.report(2 * SECOND).expect("traffic");
        assert_eq!(stat.average_proxied_concurrent_requests, 1.0);
        assert_eq!(stat.proxied_request_count, 0.0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_peak(events in proptest::collection::vec((0u64..1_000_000, any::<bool>()), 1..50)) {
            let mut meter = Meter::new(0);
            let (mut now, mut peak) = (0, 0);
            for (step, enters) in events {
                now += step;
                if enters { meter.enter(now) } else { meter.leave(now) }
                peak = peak.max(meter.in_flight());
            }
            if let Some(stat) = meter.report(now + 1) {
                prop_assert!(stat.average_concurrent_requests <= f64::from(peak));
                prop_assert!(stat.average_concurrent_requests >= 0.0);
            }
        }
    }
}
