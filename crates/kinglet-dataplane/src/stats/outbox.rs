//! What an activator has to say next: each statistic once, and each waiting request until somebody has heard it.
//!
//! A request that waits for a pod is told at once as one request. The next statistic counts it, too, so it is taken out
//! there (spec/serving.md 5.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use kinglet_decide::feed::{Key, Report, Stat};
use kinglet_decide::wire::WireStat;

/// Revisions with a waiting request that are kept while nobody listens. The data plane tells the others again.
const POKES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pokes: BTreeMap<Key, Poke>,
}

#[derive(Debug)]
struct Poke {
    pod: Arc<str>,
    state: State,
    /// 1, or 0 when the request that still waits was counted before.
    requests: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody was told.
    Waits,
    /// Told; the next statistic counts it again.
    Told,
    /// Told and counted; requests of this Revision are still under way.
    Counted,
}

impl Outbox {
    /// Takes a report. Answers with what to send now; without somebody who `listens`, nothing, and a statistic is lost.
    pub(super) fn take(&mut self, report: Report, listens: bool) -> Option<WireStat> {
        match report {
            Report::Poke { revision, source } => {
                self.poke(&revision, source.pod);
                let poke = self.pokes.get_mut(&revision).filter(|_| listens)?;
                poke.tell(&revision)
            }
            Report::Stat {
                revision,
                source,
                stat,
            } => {
                let stat = self.without_told(&revision, stat);
                listens.then_some(WireStat {
                    revision,
                    pod: source.pod,
                    stat,
                })
            }
            // The end of the connection says so.
            Report::Gone { .. } => None,
        }
    }

    fn poke(&mut self, revision: &Key, pod: Arc<str>) {
        if let Some(poke) = self.pokes.get_mut(revision) {
            if poke.state == State::Counted {
                poke.state = State::Waits;
                poke.requests = 0.0;
            }
        } else if self.pokes.len() < POKES_MAX {
            let poke = Poke {
                pod,
                state: State::Waits,
                requests: 1.0,
            };
            self.pokes.insert(revision.clone(), poke);
        }
    }

    fn without_told(&mut self, revision: &Key, mut stat: Stat) -> Stat {
        let Some(poke) = self.pokes.get_mut(revision) else {
            return stat;
        };
        if poke.state == State::Told {
            stat.average_concurrent_requests = (stat.average_concurrent_requests - 1.0).max(0.0);
            stat.request_count = (stat.request_count - poke.requests).max(0.0);
            poke.state = State::Counted;
        }
        if stat.in_flight.unwrap_or(0) == 0 {
            self.pokes.remove(revision);
        }
        stat
    }

    /// What waited for somebody to listen.
    pub(super) fn waiting(&mut self) -> Vec<WireStat> {
        self.pokes
            .iter_mut()
            .filter_map(|(revision, poke)| poke.tell(revision))
            .collect()
    }

    /// Whether anything waits for somebody to listen.
    pub(super) fn is_urgent(&self) -> bool {
        self.pokes.values().any(|poke| poke.state == State::Waits)
    }

    /// The connection has ended: what was told last was perhaps not heard.
    pub(super) fn not_heard(&mut self) {
        for poke in self.pokes.values_mut() {
            if poke.state == State::Told {
                poke.state = State::Waits;
            }
        }
    }
}

impl Poke {
    fn tell(&mut self, revision: &Key) -> Option<WireStat> {
        if self.state != State::Waits {
            return None;
        }
        self.state = State::Told;
        Some(WireStat {
            revision: revision.clone(),
            pod: self.pod.clone(),
            stat: Stat {
                average_concurrent_requests: 1.0,
                request_count: self.requests,
                ..Stat::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use kinglet_decide::feed::Source;

    use super::*;

    fn key() -> Key {
        Key::new("a", "r")
    }

    fn poke() -> Report {
        Report::Poke {
            revision: key(),
            source: Source::itself("activator-1"),
        }
    }

    fn stat(concurrency: f64, requests: f64, in_flight: u32) -> Report {
        Report::Stat {
            revision: key(),
            source: Source::itself("activator-1"),
            stat: Stat {
                average_concurrent_requests: concurrency,
                request_count: requests,
                in_flight: Some(in_flight),
                ..Stat::default()
            },
        }
    }

    fn brief(sent: Option<WireStat>) -> Option<(f64, f64)> {
        sent.map(|sent| {
            (
                sent.stat.average_concurrent_requests,
                sent.stat.request_count,
            )
        })
    }

    #[test]
    fn a_waiting_request_is_told_at_once_and_counted_once() {
        let mut outbox = Outbox::default();
        assert_eq!(brief(outbox.take(poke(), true)), Some((1.0, 1.0)));
        assert_eq!(brief(outbox.take(poke(), true)), None, "told already");
        assert_eq!(
            brief(outbox.take(stat(2.5, 3.0, 2), true)),
            Some((1.5, 2.0))
        );
        assert_eq!(
            brief(outbox.take(stat(2.0, 1.0, 2), true)),
            Some((2.0, 1.0))
        );
        // It waits still: its place is taken again, it is no new request.
        assert_eq!(brief(outbox.take(poke(), true)), Some((1.0, 0.0)));
        assert_eq!(
            brief(outbox.take(stat(2.0, 4.0, 1), true)),
            Some((1.0, 4.0))
        );
        assert_eq!(
            brief(outbox.take(stat(0.0, 0.0, 0), true)),
            Some((0.0, 0.0))
        );
        assert!(outbox.pokes.is_empty());
        assert_eq!(brief(outbox.take(poke(), true)), Some((1.0, 1.0)));
        assert_eq!(
            brief(outbox.take(stat(0.25, 1.0, 1), true)),
            Some((0.0, 0.0))
        );
    }

    #[test]
    fn nobody_listens_statistics_are_lost_and_requests_are_not() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.take(stat(3.0, 3.0, 3), false), None);
        assert!(!outbox.is_urgent());
        assert_eq!(outbox.take(poke(), false), None);
        assert_eq!(outbox.take(stat(1.0, 1.0, 1), false), None);
        assert!(outbox.is_urgent());
        let told = outbox.waiting();
        assert_eq!((told.len(), told[0].stat.request_count), (1, 1.0));
        assert!(outbox.waiting().is_empty());
        outbox.not_heard();
        assert_eq!(
            outbox.waiting().len(),
            1,
            "told again to the next one who listens"
        );
    }

    #[test]
    fn a_request_that_gave_up_is_not_told() {
        let mut outbox = Outbox::default();
        outbox.take(poke(), false);
        outbox.take(stat(0.0, 1.0, 0), false);
        assert!(outbox.waiting().is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        for at in 0..POKES_MAX + 10 {
            outbox.take(
                Report::Poke {
                    revision: Key::new("a", format!("r-{at}")),
                    source: Source::itself("activator-1"),
                },
                false,
            );
        }
        assert_eq!(outbox.waiting().len(), POKES_MAX);
    }
}
