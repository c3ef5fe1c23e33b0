//! Where the time of a request went: one header on demand, and the last cold starts for `status`.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use kinglet_decide::feed::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The stations of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timings {
    pub(crate) arrived: Instant,
    pub(crate) routed: Option<Instant>,
    pub(crate) admitted: Option<Instant>,
    pub(crate) connected: Option<Instant>,
}

impl Timings {
    pub(crate) fn new() -> Self {
        Self {
            arrived: Instant::now(),
            routed: None,
            admitted: None,
            connected: None,
        }
    }

    /// `route;dur=…, wait;dur=…, connect;dur=…, first-byte;dur=…`, in milliseconds; each counts from the one before.
    pub(crate) fn header(&self, answered: Instant) -> Option<HeaderValue> {
        let mut from = self.arrived;
        let mut made = String::new();
        let stations = [
            ("route", self.routed),
            ("wait", self.admitted),
            ("connect", self.connected),
            ("first-byte", Some(answered)),
        ];
        for (name, at) in stations {
            let Some(at) = at else { continue };
            if !made.is_empty() {
                made.push_str(", ");
            }
            made.push_str(&format!(
                "{name};dur={:.3}",
                milliseconds(at.saturating_duration_since(from))
            ));
            from = from.max(at);
        }
        HeaderValue::from_str(&made).ok()
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A request that had to wait for a container to start.
#[derive(Clone, Debug)]
pub struct ColdStart {
    /// What it was for.
    pub revision: Key,
    /// The pod that served it.
    pub pod: std::sync::Arc<str>,
    /// When it arrived and the autoscaler was poked.
    pub woke: Timestamp,
    /// From then until a container had a slot for it.
    pub wait: Duration,
    /// From the slot to an open connection.
    pub connect: Duration,
    /// From the connection to the head of the answer.
    pub first_byte: Duration,
}

/// The last cold starts, oldest first.
pub(crate) struct ColdStarts {
    kept: usize,
    last: Mutex<VecDeque<ColdStart>>,
}

impl ColdStarts {
    pub(crate) fn new(kept: usize) -> Self {
        Self {
            kept,
            last: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, start: ColdStart) {
        let mut last = self.last.lock();
        if last.len() >= self.kept {
            last.pop_front();
        }
        last.push_back(start);
    }

    pub(crate) fn all(&self) -> Vec<ColdStart> {
        self.last.lock().iter().cloned().collect()
    }
}
