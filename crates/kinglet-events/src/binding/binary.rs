//! Binary mode: attributes are headers `ce-NAME`, the content type is that of the data, the body is the data.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{DecodeError, finish};
use crate::event::{
    Attribute, Event, Extension, ExtensionName, InvalidAttribute, PREFIX, SPEC_VERSION_HEADER,
    SpecVersion,
};

/// Takes the first value of each header, without percent-decoding: both as Knative does.
pub(super) fn decode(
    version: SpecVersion,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Event, DecodeError> {
    let mut event = Event::empty(version);
    let mut problems = Vec::new();
    for name in headers.keys() {
        let Some(value) = headers.get(name) else {
            continue;
        };
        if let Err(problem) = header(&mut event, name, value) {
            problems.push(problem);
        }
    }
    if !body.is_empty() {
        event.set_data(Some(body));
    }
    finish(event, problems)
}

fn header(
    event: &mut Event,
    header: &HeaderName,
    value: &HeaderValue,
) -> Result<(), InvalidAttribute> {
    if header == CONTENT_TYPE {
        return event.set_header(Attribute::DataContentType, value.clone());
    }
    let Some(name) = header.as_str().strip_prefix(PREFIX) else {
        return Ok(());
    };
    if header == SPEC_VERSION_HEADER {
        return Ok(());
    }
    match Attribute::parse(event.version(), name) {
        // `ce-datacontenttype` is not the attribute, which travels as `Content-Type`; it stays what it came as.
        Some(attribute) if attribute != Attribute::DataContentType => {
            event.set_header(attribute, value.clone())
        }
        _ => event.put_extension(Extension::of_header(
            ExtensionName::of_header(header)?,
            value.clone(),
        )?),
    }
}

/// Adds the headers; data is shared.
pub(super) fn encode(event: &Event, headers: &mut HeaderMap) -> Bytes {
    headers.insert(
        SPEC_VERSION_HEADER.clone(),
        HeaderValue::from_static(event.version().as_str()),
    );
    for attribute in Attribute::ALL {
        if let Some(value) = event.header(attribute) {
            headers.insert(attribute.header(event.version()).clone(), value.clone());
        }
    }
    for extension in event.extensions() {
        let (name, value) = extension.header();
        headers.insert(name, value);
    }
    event.data().cloned().unwrap_or_default()
}
