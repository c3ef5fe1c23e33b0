//! The HTTP binding: events out of requests and replies, and back (spec/eventing.md 7.1).
//!
//! Flow: headers and body of a request -> [`decode`] -> [`Event`] -> [`encode`] -> headers and body of the next request.
//! Always: data is never copied, and in binary mode no text either; what cannot be read is refused with a reason.

mod batch;
mod binary;
mod reply;
mod structured;
pub(crate) use structured::integer;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::event::{Event, InvalidAttribute, PREFIX, SPEC_VERSION_HEADER, SpecVersion, essence};

pub use batch::{BATCH_EVENTS_MAX, decode_batch, encode_batch};
pub use reply::{Reply, answer_status, decode_reply};

/// Content type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Content type of a batch.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// A body, data included. Knative has no bound; its users' largest brokers (Kafka, JetStream) refuse from 1 MB on, and
/// whoever reads a body stops here.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// How an event is written into a request (`delivery.format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Attributes are headers, data is the body.
    #[default]
    Binary,
    /// All of it is one JSON object.
    Json,
}

/// What the headers say about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An event whose attributes are headers.
    Binary(SpecVersion),
    /// An event as JSON.
    Structured,
    /// A list of events as JSON.
    Batch,
    /// No event.
    None,
}

/// Looks at the content type, then at `ce-specversion`.
pub fn mode(headers: &HeaderMap) -> Mode {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(essence)
        .unwrap_or_default();
    if content_type.eq_ignore_ascii_case(STRUCTURED) {
        return Mode::Structured;
    }
    if content_type.eq_ignore_ascii_case(BATCH) {
        return Mode::Batch;
    }
    headers
        .get(&SPEC_VERSION_HEADER)
        .and_then(|version| SpecVersion::parse(version.as_bytes()))
        .map_or(Mode::None, Mode::Binary)
}

/// Whether a header is an attribute of an event in binary mode, and so no header of the request that it travels in.
pub fn is_attribute_header(name: &http::HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// Why there is no event in a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither mode.
    #[error(
        "this is not a CloudEvent: {0}. Send headers ce-specversion (1.0 or 0.3), ce-id, ce-type and ce-source, or a JSON object as application/cloudevents+json"
    )]
    NotAnEvent(String),
    /// A batch where one event is expected.
    #[error(
        "batches of events ({BATCH}) are not taken here, as in Knative: send each event in a request of its own"
    )]
    Batch,
    /// No JSON, or not of the form of an event.
    #[error("reading the body as a CloudEvent in JSON: {0}")]
    Json(String),
    /// Attributes that are missing or break a rule.
    #[error("the event is not valid: {}", list(.0))]
    Invalid(Vec<InvalidAttribute>),
    /// More than is taken in.
    #[error("{what} of {bytes} bytes: at most {max} are taken")]
    TooLarge {
        /// What of the event.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
}

fn list(problems: &[InvalidAttribute]) -> String {
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    words.join("; ")
}

impl DecodeError {
    /// The status for the sender: 400 as Knative's, 413 for what Knative has no bound for.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAnEvent(_) | Self::Batch | Self::Json(_) | Self::Invalid(_) => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

/// Reads the one event of a request and checks it.
pub fn decode(headers: &HeaderMap, body: Bytes) -> Result<Event, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: "a body",
            bytes: body.len(),
            max: BODY_BYTES_MAX,
        });
    }
    match mode(headers) {
        Mode::Binary(version) => binary::decode(version, headers, body),
        Mode::Structured => structured::decode(&body),
        Mode::Batch => Err(DecodeError::Batch),
        Mode::None => Err(not_an_event(headers)),
    }
}

fn not_an_event(headers: &HeaderMap) -> DecodeError {
    let show =
        |value: &HeaderValue| crate::event::shorten(&String::from_utf8_lossy(value.as_bytes()));
    let version = match headers.get(&SPEC_VERSION_HEADER) {
        Some(version) => format!("version {:?} in ce-specversion is not known", show(version)),
        None => "header ce-specversion is missing".to_owned(),
    };
    let content_type = match headers.get(CONTENT_TYPE) {
        Some(kind) => format!("content type {:?} is not that of an event", show(kind)),
        None => "there is no content type".to_owned(),
    };
    DecodeError::NotAnEvent(format!("{version}, and {content_type}"))
}

/// Writes an event: adds its headers and returns the body.
pub fn encode(event: &Event, format: Format, headers: &mut HeaderMap) -> Bytes {
    match format {
        Format::Binary => binary::encode(event, headers),
        Format::Json => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
            structured::encode(event).into()
        }
    }
}

/// Reports what an event lacks, and how large its attributes are.
fn finish(event: Event, mut problems: Vec<InvalidAttribute>) -> Result<Event, DecodeError> {
    let bytes = event.attributes_bytes();
    if bytes > crate::event::ATTRIBUTES_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: "attributes",
            bytes,
            max: crate::event::ATTRIBUTES_BYTES_MAX,
        });
    }
    // What is there and wrong is not also missing.
    let missing: Vec<InvalidAttribute> = event
        .missing()
        .filter(|missing| problems.iter().all(|problem| problem.name != missing.name))
        .collect();
    problems.extend(missing);
    if problems.is_empty() {
        Ok(event)
    } else {
        problems.truncate(PROBLEMS_MAX);
        Err(DecodeError::Invalid(problems))
    }
}

/// Problems that one answer lists.
const PROBLEMS_MAX: usize = 16;

#[cfg(test)]
mod tests;
