//! The header `Retry-After`: seconds, or one of HTTP's three forms of a date.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::retry::WAIT_MAX;

/// How long an answer asks to wait; a date that is over asks for no wait. `None` for what is neither.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().map_or(WAIT_MAX, Duration::from_secs);
        return Some(seconds.min(WAIT_MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let wait = date.duration_since(SystemTime::from(now));
    Some(wait.unwrap_or_default().min(WAIT_MAX))
}
