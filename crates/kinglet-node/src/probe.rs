//! Probes: is a container started, ready, alive?
//!
//! Flow: [`plan`] reads a container's probes (pure) -> [`watch`] asks again and again -> [`tally`] turns answers into verdicts
//! -> the pod's worker.

pub(crate) mod check;
pub(crate) mod connect;
pub(crate) mod plan;
pub(crate) mod tally;
pub(crate) mod watch;

pub(crate) use plan::{Plan, Purpose};
