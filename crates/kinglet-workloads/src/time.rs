//! Stamps as Kubernetes writes them.

use jiff::Timestamp;

/// `metav1.Time` carries whole seconds.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
