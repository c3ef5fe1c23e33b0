//! Which answers are tried again, and when.

use std::time::Duration;

use jiff::Timestamp;

use super::retry_after::retry_after;
use crate::binding::Format;

/// The longest wait between two attempts. Knative has no bound, and its exponents overflow; a year is past every retention.
pub const WAIT_MAX: Duration = Duration::from_hours(366 * 24);

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// The delay times the number of retries before: the first retry is at once.
    Linear,
    /// The delay, doubled with each retry.
    Exponential,
}

impl BackoffPolicy {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "linear" => Some(Self::Linear),
            "exponential" => Some(Self::Exponential),
            _ => None,
        }
    }
}

/// Waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How they grow.
    pub policy: BackoffPolicy,
    /// From what.
    pub delay: Duration,
}

impl Backoff {
    /// The wait before a retry; the first is number 0.
    pub fn wait(self, retry: u32) -> Duration {
        let factor = match self.policy {
            BackoffPolicy::Linear => retry,
            BackoffPolicy::Exponential => 1_u32.checked_shl(retry).unwrap_or(u32::MAX),
        };
        self.delay.saturating_mul(factor).min(WAIT_MAX)
    }
}

/// How deliveries to one destination are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts after the first.
    pub retries: u32,
    /// Waits between them; none without.
    pub backoff: Option<Backoff>,
    /// Bounds each attempt.
    pub timeout: Option<Duration>,
    /// The longest that `Retry-After` is followed; it is ignored without.
    pub retry_after_max: Option<Duration>,
    /// How the event is written.
    pub format: Format,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt<'a> {
    /// No answer: the connection failed, or time was up.
    NoAnswer,
    /// An answer with this status and, if any, this header `Retry-After`.
    Answered {
        /// The status.
        status: u16,
        /// The header's value.
        retry_after: Option<&'a str>,
    },
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is delivered.
    Delivered,
    /// It is tried again after this wait.
    RetryAfter(Duration),
    /// It goes to the dead letter sink.
    GiveUp,
}

/// Whether a status says that the event was taken.
pub fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Whether a status is tried again: what the other end may get over, and what comes and goes with a deployment.
pub fn is_retried(status: u16) -> bool {
    matches!(status, 404 | 408 | 409 | 429 | 500..)
}

impl Delivery {
    /// Attempts in all.
    pub fn attempts(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// What follows the attempt of this number; the first is number 0.
    pub fn after(&self, attempt: u32, ended: Attempt<'_>, now: Timestamp) -> Step {
        let header = match ended {
            Attempt::Answered { status, .. } if is_success(status) => return Step::Delivered,
            Attempt::Answered { status, .. } if !is_retried(status) => return Step::GiveUp,
            Attempt::Answered {
                status: 429 | 503,
                retry_after,
            } => retry_after,
            Attempt::Answered { .. } | Attempt::NoAnswer => None,
        };
        if attempt >= self.retries {
            return Step::GiveUp;
        }
        let backoff = self
            .backoff
            .map_or(Duration::ZERO, |backoff| backoff.wait(attempt));
        let asked = self.retry_after_max.and_then(|longest| {
            let asked = retry_after(header?, now)?;
            Some(asked.min(longest))
        });
        Step::RetryAfter(backoff.max(asked.unwrap_or_default()).min(WAIT_MAX))
    }
}
