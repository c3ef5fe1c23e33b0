//! Delivery: how often a request is tried, how long is waited, and what a dead letter says (spec/eventing.md 7.6).
//!
//! Flow: `spec.delivery` -> [`DeliverySpec::validate`] at admission -> [`Delivery`] -> per attempt [`Delivery::after`].
//! Always: functions of what happened and of the time they are given; no wait is longer than [`WAIT_MAX`].

mod dead_letter;
mod retry;
mod retry_after;
mod spec;
mod ttl;

pub use dead_letter::{
    ERROR_CODE, ERROR_DATA, ERROR_DATA_CHARACTERS_MAX, ERROR_DESTINATION, FilterAnswer, annotate,
};
pub use retry::{
    Attempt, Backoff, BackoffPolicy, Delivery, Step, WAIT_MAX, is_retried, is_success,
};
pub use retry_after::retry_after;
pub use spec::{DeliveryFlags, DeliverySpec, InvalidDelivery};
pub use ttl::{ARRIVAL_TIME, TTL, TTL_DEFAULT, TtlExhausted, arrive, remaining_ttl};

#[cfg(test)]
mod tests;
