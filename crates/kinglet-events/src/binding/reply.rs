//! What a subscriber answered with (spec/eventing.md 7.4 and 7.6).

use bytes::Bytes;
use http::HeaderMap;

use super::{DecodeError, Mode, decode, mode};
use crate::event::Event;

/// The body of a successful answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Empty,
    /// An event, which goes to the reply address.
    Event(Box<Event>),
    /// Something else. A channel discards it; the filter of a Broker answers 502.
    Other,
    /// An event that cannot be read, a batch included: 502, so the delivery failed.
    Malformed(DecodeError),
}

/// The status with which a stage passes an answer on: one that no client understands becomes 200, as in Knative.
pub fn answer_status(status: u16) -> u16 {
    if (200..600).contains(&status) {
        status
    } else {
        200
    }
}

/// Reads the answer to a delivery.
pub fn decode_reply(headers: &HeaderMap, body: Bytes) -> Reply {
    match mode(headers) {
        Mode::None if body.is_empty() => Reply::Empty,
        Mode::None => Reply::Other,
        Mode::Binary(_) | Mode::Structured | Mode::Batch => match decode(headers, body) {
            Ok(event) => Reply::Event(Box::new(event)),
            Err(error) => Reply::Malformed(error),
        },
    }
}
