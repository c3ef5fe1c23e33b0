//! One piece of work per key at a time; who comes meanwhile waits, and shares a failure instead of repeating it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Credentials;

/// Work under way, by key. A seat gives its place back when it is dropped, also by cancellation or panic.
#[derive(Default)]
pub(crate) struct Flights(Mutex<BTreeMap<String, Arc<Flight>>>);

#[derive(Default)]
struct Flight {
    turn: tokio::sync::Mutex<()>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<(Credentials, String)>,
}

/// A place in the queue of one key.
pub(crate) struct Seat<'a> {
    flights: &'a Flights,
    key: String,
    flight: Arc<Flight>,
    failures_before: u64,
}

impl Flights {
    pub(crate) fn seat(&self, key: &str) -> Seat<'_> {
        let flight = Arc::clone(self.0.lock().entry(key.to_owned()).or_default());
        let failures_before = flight.failures.lock().count;
        Seat {
            flights: self,
            key: key.to_owned(),
            flight,
            failures_before,
        }
    }

    #[cfg(test)]
    fn under_way(&self) -> usize {
        self.0.lock().len()
    }
}

impl Seat<'_> {
    /// Waits until nobody else works on the key.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.flight.turn.lock().await
    }

    /// Why somebody with the same credentials failed while this seat waited.
    pub(crate) fn shared_failure(&self, credentials: &Credentials) -> Option<String> {
        let failures = self.flight.failures.lock();
        let (theirs, why) = failures.last.as_ref()?;
        (failures.count > self.failures_before && theirs == credentials).then(|| why.clone())
    }

    /// Tells those who wait.
    pub(crate) fn failed(&self, credentials: &Credentials, why: String) {
        let mut failures = self.flight.failures.lock();
        failures.count += 1;
        failures.last = Some((credentials.clone(), why));
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        // Two references: the map's and ours. More means that somebody waits for the next turn.
        if Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_seat_frees_the_key() {
        let flights = Flights::default();
        let first = flights.seat("a");
        let turn = first.turn().await;
        let waiting = flights.seat("a");
        assert!(futures_util::FutureExt::now_or_never(waiting.turn()).is_none());
        drop(waiting);
        drop(turn);
        drop(first);
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_shared_with_those_who_waited() {
        let flights = Flights::default();
        let anonymous = Credentials::default();
        let first = flights.seat("a");
        let waiting = flights.seat("a");
        first.failed(&anonymous, "gone".to_owned());
        assert_eq!(waiting.shared_failure(&anonymous).as_deref(), Some("gone"));
        assert_eq!(
            flights.seat("a").shared_failure(&anonymous),
            None,
            "who comes later tries again"
        );
    }
}
