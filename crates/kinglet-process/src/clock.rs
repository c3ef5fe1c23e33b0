//! The one place where time is read.
//!
//! Wall time for stamps comes from [`Clock`]; waiting and measuring use `tokio::time`, which tests pause.

use std::sync::Arc;

use jiff::Timestamp;

/// A source of wall-clock time, handed to whatever stamps objects.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where time is read"
    )]
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// Time that starts at `start` and runs with `tokio::time`, so that paused tests control it.
    pub fn simulated(start: Timestamp) -> Self {
        let began = tokio::time::Instant::now();
        Self(Arc::new(move || {
            let passed = jiff::SignedDuration::try_from(began.elapsed())
                .unwrap_or(jiff::SignedDuration::MAX);
            start.checked_add(passed).unwrap_or(Timestamp::MAX)
        }))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
