//! Events as the log keeps them, and back.
//!
//! Attributes are headers of the binary mode; beside them stand the headers that are passed on.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use kinglet_events::binding::{self, DecodeError, Format};
use kinglet_events::{Event, headers};

use crate::engine::{HeadersBuilder, StoredEvent};

/// Packs an event with the headers of its request that are passed on.
pub(crate) fn pack(event: &Event, passed_on: &HeaderMap, now: Timestamp) -> StoredEvent {
    let mut map = HeaderMap::new();
    let body = binding::encode(event, Format::Binary, &mut map);
    let mut packed = HeadersBuilder::default();
    for (name, value) in map.iter().chain(passed_on) {
        packed.push(name.as_str(), value.as_bytes());
    }
    StoredEvent {
        arrived: now,
        headers: packed.build(),
        body,
    }
}

/// Reads an event that was packed.
pub(crate) fn unpack(stored: &StoredEvent) -> Result<(Event, HeaderMap), DecodeError> {
    let mut map = HeaderMap::new();
    for (name, value) in stored.headers.iter() {
        // Both were a header before.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) {
            map.append(name, value);
        }
    }
    let event = binding::decode(&map, stored.body.clone())?;
    Ok((event, headers::forwarded(&map)))
}
