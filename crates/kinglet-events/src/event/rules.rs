//! What attributes may hold (spec/eventing.md 7.1), and how much.

use bytes::Bytes;
use http::HeaderValue;

use super::attribute::{Attribute, SpecVersion};
use super::{media_type, timestamp, uri};

/// Extensions of one event. A head of HTTP/1 has at most a hundred headers (hyper), and the extensions are among them.
pub const EXTENSIONS_MAX: usize = 100;
/// Names and values of an event's attributes together: what CloudEvents asks intermediaries to forward for a whole event.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// An extension's name. CloudEvents advises 20 characters; Knative has no bound.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;
/// Extensions that a Broker and the dispatcher set themselves. They do not count towards the bounds, so that an event that
/// was taken in is never refused by a later stage.
pub(crate) const OWN_EXTENSIONS: [&str; 5] = [
    "knativearrivaltime",
    "knativebrokerttl",
    "knativeerrorcode",
    "knativeerrordata",
    "knativeerrordest",
];
/// A value of such an extension; what is longer counts. The longest is an address.
pub(super) const OWN_VALUE_BYTES_MAX: usize = 8 << 10;
/// How much of a value is repeated in an error.
const SHOWN_MAX: usize = 64;

/// An attribute that breaks a rule, and which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute {name:?} {reason}")]
pub struct InvalidAttribute {
    /// The attribute.
    pub name: String,
    /// The rule, as the end of a sentence that begins with the attribute.
    pub reason: String,
}

impl InvalidAttribute {
    pub(crate) fn new(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: shorten(name),
            reason: reason.into(),
        }
    }
}

/// The beginning of what somebody wrote, for an error.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Letters and digits.
pub(super) fn extension_name(name: &str) -> Result<(), InvalidAttribute> {
    if name.is_empty() {
        return Err(InvalidAttribute::new(name, "has no name"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(InvalidAttribute::new(
            name,
            "has a name of other characters than letters a-z and digits",
        ));
    }
    if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
        return Err(InvalidAttribute::new(
            name,
            format!("has a name longer than {ATTRIBUTE_NAME_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// A header value of text that somebody wrote into JSON.
pub(super) fn header_value(
    name: &str,
    text: impl Into<Bytes>,
) -> Result<HeaderValue, InvalidAttribute> {
    let text: Bytes = text.into();
    self::text(name, &text)?;
    HeaderValue::from_maybe_shared(text).map_err(|_| control_character(name))
}

/// UTF-8 without control characters, which CloudEvents forbids in a String and HTTP in a header.
pub(super) fn text(name: &str, bytes: &[u8]) -> Result<(), InvalidAttribute> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| InvalidAttribute::new(name, "is not text in UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(control_character(name));
    }
    Ok(())
}

fn control_character(name: &str) -> InvalidAttribute {
    InvalidAttribute::new(name, "holds a control character")
}

/// Checks an attribute, and brings `time` into the form in which it is sent on; `None` removes an optional one.
pub(super) fn attribute(
    version: SpecVersion,
    attribute: Attribute,
    value: HeaderValue,
) -> Result<Option<HeaderValue>, InvalidAttribute> {
    let name = attribute.name(version);
    text(name, value.as_bytes())?;
    let words = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    let invalid = |reason: &str| {
        Err(InvalidAttribute::new(
            name,
            format!("{reason}, and is {:?}", shorten(words)),
        ))
    };
    let blank = words.trim().is_empty();
    match attribute {
        Attribute::Id | Attribute::Source | Attribute::Type if blank => {
            Err(InvalidAttribute::new(name, "is required and not empty"))
        }
        // As upstream's setters: empty is the same as absent.
        _ if words.is_empty() => Ok(None),
        _ if blank => invalid("is not blank when it is present"),
        Attribute::Source | Attribute::DataSchema if !uri::is_reference(words) => {
            invalid("is a URI reference (RFC 3986)")
        }
        Attribute::DataSchema if version == SpecVersion::V1 && !uri::is_absolute(words) => {
            invalid("is an absolute URI")
        }
        Attribute::DataContentType if !media_type::parses(words) => {
            invalid("is a media type (RFC 2046)")
        }
        Attribute::Time => match timestamp::canonical(words) {
            None => invalid("is a timestamp of RFC 3339, such as 2006-01-02T15:04:05Z"),
            Some(None) => Ok(Some(value)),
            Some(Some(canonical)) => header_value(name, canonical).map(Some),
        },
        _ => Ok(Some(value)),
    }
}
