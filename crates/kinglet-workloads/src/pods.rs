//! Readings of a Pod that several controllers of this crate share, beside those of [`kinglet_reconcile::pod`].

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

pub(crate) use kinglet_reconcile::pod::{
    condition, is_active, is_ready, is_terminal, node_of, phase,
};

/// How availability stands: ready for at least `minReadySeconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Unavailable,
    /// Ready, and available after so long.
    Soon(Duration),
    Available,
}

/// Whether a Pod has been ready for `min_ready_seconds`.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|condition| condition.status == "True") else {
        return Availability::Unavailable;
    };
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let since = ready
        .last_transition_time
        .as_ref()
        .map_or(now, |time| time.0);
    let left = SignedDuration::from_secs(min_ready_seconds.into()) - now.duration_since(since);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Availability::Soon(left),
        _ => Availability::Available,
    }
}
