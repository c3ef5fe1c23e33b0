//! One piece of work per key at a time; who comes meanwhile waits, and shares a failure instead of repeating it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Credentials;

/// Work under way, by key. A caller leaves when it is dropped, also by cancellation or panic.
#[derive(Default)]
pub(crate) struct SingleFlight(Mutex<BTreeMap<String, Arc<Call>>>);

#[derive(Default)]
struct Call {
    lock: tokio::sync::Mutex<()>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<(Credentials, String)>,
}

/// One caller of the work for a key.
pub(crate) struct Caller<'a> {
    group: &'a SingleFlight,
    key: String,
    call: Arc<Call>,
    failures_before: u64,
}

impl SingleFlight {
    pub(crate) fn join(&self, key: &str) -> Caller<'_> {
        let call = Arc::clone(self.0.lock().entry(key.to_owned()).or_default());
        let failures_before = call.failures.lock().count;
        Caller {
            group: self,
            key: key.to_owned(),
            call,
            failures_before,
        }
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.0.lock().len()
    }
}

impl Caller<'_> {
    /// Waits until nobody else works on the key.
    pub(crate) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.call.lock.lock().await
    }

    /// The error of another caller with the same credentials that failed while this caller waited.
    pub(crate) fn shared_failure(&self, credentials: &Credentials) -> Option<String> {
        let failures = self.call.failures.lock();
        let (theirs, message) = failures.last.as_ref()?;
        (failures.count > self.failures_before && theirs == credentials).then(|| message.clone())
    }

    /// Tells those who wait.
    pub(crate) fn failed(&self, credentials: &Credentials, message: String) {
        let mut failures = self.call.failures.lock();
        failures.count += 1;
        failures.last = Some((credentials.clone(), message));
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut calls = self.group.0.lock();
        // Two references: the map's and ours. More means that somebody waits for the lock.
        if Arc::strong_count(&self.call) == 2 {
            calls.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_caller_frees_the_key() {
        let group = SingleFlight::default();
        let first = group.join("a");
        let lock = first.lock().await;
        let waiting = group.join("a");
        assert!(futures_util::FutureExt::now_or_never(waiting.lock()).is_none());
        drop(waiting);
        drop(lock);
        drop(first);
        assert_eq!(group.pending(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_shared_with_those_who_waited() {
        let group = SingleFlight::default();
        let anonymous = Credentials::default();
        let first = group.join("a");
        let waiting = group.join("a");
        first.failed(&anonymous, "gone".to_owned());
        assert_eq!(waiting.shared_failure(&anonymous).as_deref(), Some("gone"));
        assert_eq!(
            group.join("a").shared_failure(&anonymous),
            None,
            "who comes later tries again"
        );
    }
}
