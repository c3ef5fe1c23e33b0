//! The data plane of Eventing: keeps events until every subscription has them, and delivers them.
//!
//! Flow: a producer's request -> `service` (methods, paths, bodies) -> `ingress` (a Broker: access, TTL, arrival time) ->
//! `receiver` (a channel) -> [`engine::ChannelLog::append`], which answers 202 -> a `worker` for each subscription ->
//! `deliver` (attempts, reply, dead letter) -> `filter` (a Trigger: verdict and subscriber) -> [`Transport`].
//! The reconcilers feed it ([`Handle::apply`]) and are told what it sees ([`feed::Report`]). A stage whose address is
//! in this process is called as a function (`short`); the function is the one that the HTTP service calls.
//!
//! Always: no Kubernetes client and no Kubernetes type; an event that was acknowledged is given to each subscription that
//! wants it until that one has finished it; no subscription waits for another one. What strangers send is bounded: bodies and
//! answers by `body` (16 MiB each, two of them at a time of one owner, else 64 KiB), deliveries under way by
//! [`engine::IN_HAND_MAX`] for each subscription, events by the channel's retention.

#![warn(missing_docs)]

mod access;
mod answer;
mod body;
mod deliver;
pub mod engine;
mod exchange;
pub mod feed;
mod filter;
mod handle;
mod ingress;
pub mod listen;
mod plane;
mod receiver;
mod report;
mod rules;
mod service;
mod short;
mod stored;
pub mod transport;
mod worker;

#[cfg(test)]
mod tests;

pub use access::{NoAuthority, Tokens, Verify, VerifyError};
pub use filter::AUDIENCE as FILTER_AUDIENCE;
pub use handle::{ApplyError, Handle, MEMORY_CHANNEL_BYTES_MAX, Options};
pub use report::REPORTS_MAX;
pub use short::{FILTER_SERVICE, INGRESS_SERVICE};
pub use transport::{Transport, TransportError};
