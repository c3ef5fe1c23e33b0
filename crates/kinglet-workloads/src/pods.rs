//! Readings of a Pod that several controllers share.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use std::time::Duration;

/// The condition of that type.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the Pod takes requests.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// The phase, empty before the first status.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

/// Whether its containers ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it counts as a replica: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The node it is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

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
