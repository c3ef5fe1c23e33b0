//! One pod from binding to the end.
//!
//! Flow: the node hands a bound Pod to a [`worker`] -> [`lifecycle`] says what to do next (pure) -> [`start`] does it ->
//! what happened comes back as a message -> [`status`] says what to tell the API (pure) -> the worker writes it.
//! Always: one worker per pod uid and one writer of its status; what a worker started dies with it.

pub(crate) mod backoff;
pub(crate) mod container_state;
pub(crate) mod hooks;
pub(crate) mod lifecycle;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod worker;
