//! Keeps events until every subscription has them, and delivers them.
//!
//! Flow: a producer's event -> `engine` ([`engine::ChannelLog::append`]) -> [`engine::Cursor`] of each subscription -> its sink.
//! Always: no Kubernetes client and no Kubernetes type; an event that was acknowledged is given to each subscription that
//! wants it until that one has finished it; no subscription waits for another one.

#![warn(missing_docs)]

pub mod engine;
