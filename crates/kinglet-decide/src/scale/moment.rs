//! Time as the caller measures it: a distance from an epoch of its own.

use std::time::Duration;

/// A point in time, as the distance from whatever epoch the caller chose.
///
/// Moments of different epochs must not be mixed. Subtraction never goes below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since_epoch` after the epoch.
    pub const fn new(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// The moment a whole number of seconds after the epoch.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn second(self) -> u64 {
        self.0.as_secs()
    }

    /// The nearest whole second: what a one-second ticker meant, whatever its jitter.
    pub const fn nearest_second(self) -> u64 {
        self.0.saturating_add(Duration::from_millis(500)).as_secs()
    }

    /// Distance from the epoch.
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Time since `earlier`; zero when `earlier` lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `by` later.
    pub const fn later(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}
