//! CloudEvents as Knative's brokers and channels treat them: the HTTP binding, filters of Triggers, CloudEvents SQL, and
//! the rules of delivery.
//!
//! Flow: a request's headers and body -> [`binding::decode`] -> [`event::Event`] -> [`filter::FilterIndex`] says which
//! Triggers get it -> [`binding::encode`] and [`headers::delivery`] -> a request to each subscriber -> [`delivery::Delivery`]
//! says whether and when again -> [`delivery::annotate`] for the dead letter sink.
//! Always: no clock, no randomness, no IO, no tokio, no Kubernetes types; equal inputs give equal answers. Header values
//! and data are the sender's bytes from end to end. Whatever was sent is bounded: an event by [`event::EXTENSIONS_MAX`],
//! [`event::ATTRIBUTES_BYTES_MAX`] and [`binding::BODY_BYTES_MAX`], an expression by [`cesql::EXPRESSION_BYTES_MAX`] and
//! [`cesql::EXPRESSION_DEPTH_MAX`], its evaluation by [`cesql::EVALUATION_BYTES_MAX`].
//!
//! The event type is ours and not that of `cloudevents-sdk`, which parses and allocates every attribute and has chrono
//! and snafu behind it: a Broker forwards bytes.

#![warn(missing_docs)]

pub mod binding;
pub mod cesql;
pub mod delivery;
pub mod duration;
pub mod event;
pub mod filter;
pub mod headers;

pub use cesql::Expression;
pub use duration::IsoDuration;
pub use event::Event;
pub use filter::{Filter, FilterIndex};
