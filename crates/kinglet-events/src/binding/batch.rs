//! Batches: a JSON list of events. No address of Knative takes them; sources and tools may.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BATCH, BODY_BYTES_MAX, DecodeError, Mode, mode, not_an_event, structured};
use crate::event::Event;

/// Events of one batch. A thousand events of 16 kB are a body.
pub const BATCH_EVENTS_MAX: usize = 1_000;

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() >= BATCH_EVENTS_MAX {
                return Err(A::Error::custom(format!(
                    "more than {BATCH_EVENTS_MAX} events in one batch"
                )));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Reads a batch; one event that is not valid refuses the whole.
pub fn decode_batch(headers: &http::HeaderMap, body: &Bytes) -> Result<Vec<Event>, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: "a body",
            bytes: body.len(),
            max: BODY_BYTES_MAX,
        });
    }
    if mode(headers) != Mode::Batch {
        return Err(not_an_event(headers));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let elements = reader.deserialize_seq(Elements);
    let elements = elements.and_then(|elements| reader.end().map(|()| elements));
    let elements = elements.map_err(|error| DecodeError::Json(error.to_string()))?;
    elements
        .into_iter()
        .map(|element| structured::decode(&body.slice_ref(element.get().as_bytes())))
        .collect()
}

/// Writes a batch: adds its content type and returns the body.
pub fn encode_batch(events: &[Event], headers: &mut http::HeaderMap) -> Bytes {
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(BATCH),
    );
    let mut json = vec![b'['];
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(&structured::encode(event));
    }
    json.push(b']');
    json.into()
}
