//! Structured mode: the event is one JSON object.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{DecodeError, finish};
use crate::event::{
    ATTRIBUTES_BYTES_MAX, Attribute, EXTENSIONS_MAX, Event, ExtensionName, InvalidAttribute,
    SpecVersion, Value, is_json, shorten,
};

/// Members of the object: extensions, attributes, data.
const MEMBERS_MAX: usize = EXTENSIONS_MAX + Attribute::COUNT + 3;

/// The members as they were written. Keys come in any order, and how one is read depends on others.
struct Members<'a>(Vec<(String, &'a RawValue)>);

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the attributes of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.len() >= MEMBERS_MAX {
                return Err(A::Error::custom(format!(
                    "more than {MEMBERS_MAX} members; an event has at most {EXTENSIONS_MAX} extensions"
                )));
            }
            members.push((key, map.next_value::<&RawValue>()?));
        }
        Ok(Members(members))
    }
}

impl<'a> Members<'a> {
    fn read(json: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let members = reader.deserialize_map(MembersVisitor);
        let members = members.and_then(|members| reader.end().map(|()| members));
        members.map_err(|error| DecodeError::Json(error.to_string()))
    }

    /// The last member of a name counts, as in Go.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| *value)
    }
}

pub(super) fn decode(body: &Bytes) -> Result<Event, DecodeError> {
    let members = Members::read(body)?;
    let version = version(&members)?;
    let mut event = Event::empty(version);
    let mut problems = Vec::new();
    for (name, value) in &members.0 {
        let read = match name.as_str() {
            "specversion" | "data" | "data_base64" => Ok(()),
            name => member(&mut event, name, value),
        };
        if let Err(problem) = read {
            problems.push(problem);
        }
    }
    match data(&members, &event, body) {
        Ok(data) => event.set_data(data),
        Err(problem) => problems.push(problem),
    }
    finish(event, problems)
}

fn version(members: &Members<'_>) -> Result<SpecVersion, DecodeError> {
    let wrong =
        |reason: String| DecodeError::Invalid(vec![InvalidAttribute::new("specversion", reason)]);
    let Some(raw) = members.get("specversion") else {
        return Err(wrong("is required: 1.0 or 0.3".into()));
    };
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    let version = text.and_then(|text| SpecVersion::parse(text.as_bytes()));
    version.ok_or_else(|| wrong(format!("is 1.0 or 0.3, and is {}", shorten(raw.get()))))
}

/// An attribute or an extension.
fn member(event: &mut Event, name: &str, raw: &RawValue) -> Result<(), InvalidAttribute> {
    if let Some(attribute) = Attribute::parse(event.version(), name) {
        return match serde_json::from_str::<Option<String>>(raw.get()) {
            Ok(Some(text)) => event.set(attribute, &text),
            Ok(None) => Ok(()),
            Err(_) => Err(InvalidAttribute::new(name, "is a string")),
        };
    }
    let lower = name.to_ascii_lowercase();
    if lower == "specversion" || Attribute::parse(event.version(), &lower).is_some() {
        return Err(InvalidAttribute::new(
            name,
            format!("is written {lower:?}: names of attributes are in lower case"),
        ));
    }
    let extension = ExtensionName::parse(name)?;
    match scalar(raw.get()).map_err(|reason| InvalidAttribute::new(name, reason))? {
        None => {
            event.remove_extension(extension.as_str());
            Ok(())
        }
        Some(Scalar::Text(text)) => event.set_extension(extension, text.as_str().into()),
        Some(Scalar::Integer(number)) => event.set_extension(extension, number.into()),
        Some(Scalar::Boolean(boolean)) => event.set_extension(extension, Value::Boolean(boolean)),
    }
}

enum Scalar {
    Text(String),
    Integer(i32),
    Boolean(bool),
}

/// An extension's value; `null` removes the extension, a number loses what is behind its point.
fn scalar(json: &str) -> Result<Option<Scalar>, &'static str> {
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't') => Ok(Some(Scalar::Boolean(true))),
        Some(b'f') => Ok(Some(Scalar::Boolean(false))),
        Some(b'"') => match serde_json::from_str(json) {
            Ok(text) => Ok(Some(Scalar::Text(text))),
            Err(_) => Err("is not a string of JSON"),
        },
        Some(b'{' | b'[') => Err("is a string, a number or a boolean, and neither object nor list"),
        _ => {
            let number: f64 = serde_json::from_str(json).map_err(|_| "is not a number of JSON")?;
            integer(number)
                .map(|number| Some(Scalar::Integer(number)))
                .ok_or("is a number of 32 bits")
        }
    }
}

/// Cuts off what is behind the point; `None` beyond 32 bits.
pub(crate) fn integer(number: f64) -> Option<i32> {
    let range = f64::from(i32::MIN)..=f64::from(i32::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "that is asked for, and the range is checked"
    )]
    range.contains(&number).then_some(number as i32)
}

/// The data: a part of the body where it is JSON.
fn data(
    members: &Members<'_>,
    event: &Event,
    body: &Bytes,
) -> Result<Option<Bytes>, InvalidAttribute> {
    let string = |name: &str, raw: &RawValue, reason: &str| {
        serde_json::from_str::<String>(raw.get()).map_err(|_| InvalidAttribute::new(name, reason))
    };
    if event.version() == SpecVersion::V1
        && let Some(raw) = members.get("data_base64")
    {
        let text = string("data_base64", raw, "is a string")?;
        return from_base64("data_base64", &text).map(Some);
    }
    let Some(raw) = members.get("data") else {
        return Ok(None);
    };
    if is_base64(event) {
        let text = string(
            "data",
            raw,
            "is a string, since datacontentencoding is base64",
        )?;
        return from_base64("data", &text).map(Some);
    }
    let content_type = event.text(Attribute::DataContentType);
    if is_json(content_type) {
        return Ok(Some(body.slice_ref(raw.get().as_bytes())));
    }
    let reason = format!(
        "is a string, since the content type is {:?}",
        shorten(content_type)
    );
    Ok(Some(string("data", raw, &reason)?.into()))
}

fn from_base64(name: &str, text: &str) -> Result<Bytes, InvalidAttribute> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| InvalidAttribute::new(name, format!("is not base64: {error}")))
}

/// Version 0.3 says it by an attribute.
fn is_base64(event: &Event) -> bool {
    event
        .text(Attribute::DataContentEncoding)
        .eq_ignore_ascii_case("base64")
}

/// The event as JSON: attributes in the order Knative writes them, data, extensions sorted by name.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    let mut json = Vec::with_capacity(
        ATTRIBUTES_BYTES_MAX.min(event.attributes_bytes() * 2)
            + event.data().map_or(0, Bytes::len)
            + 256,
    );
    json.extend_from_slice(b"{\"specversion\":");
    quote(&mut json, event.version().as_str());
    for attribute in Attribute::ALL {
        if event.attribute(attribute).is_some() {
            key(&mut json, attribute.name(event.version()));
            quote(&mut json, event.text(attribute));
        }
    }
    if let Some(data) = event.data() {
        write_data(&mut json, event, data);
    }
    for extension in event.extensions() {
        // A header `ce-datacontenttype` has no place in JSON beside the attribute.
        let name = extension.name();
        if name == "data" || Attribute::parse(event.version(), name).is_some() {
            continue;
        }
        key(&mut json, name);
        match extension.value() {
            Value::Text(text) => quote(&mut json, std::str::from_utf8(text).unwrap_or_default()),
            other => other.with_text(|text| json.extend_from_slice(text)),
        }
    }
    json.push(b'}');
    json
}

/// JSON as it is, text as a string, everything else in base64. Knative writes data that is not the JSON its type says
/// as it is, and the object is broken; here it is base64, too.
fn write_data(json: &mut Vec<u8>, event: &Event, data: &Bytes) {
    if event.version() == SpecVersion::V03 && is_base64(event) {
        key(json, "data");
        return quote(json, &STANDARD.encode(data));
    }
    if is_json(event.text(Attribute::DataContentType)) {
        if serde_json::from_slice::<IgnoredAny>(data).is_ok() {
            key(json, "data");
            return json.extend_from_slice(data);
        }
    } else if let Ok(text) = std::str::from_utf8(data) {
        key(json, "data");
        return quote(json, text);
    }
    if event.version() == SpecVersion::V03 {
        key(json, "datacontentencoding");
        quote(json, "base64");
        key(json, "data");
    } else {
        key(json, "data_base64");
    }
    quote(json, &STANDARD.encode(data));
}

fn key(json: &mut Vec<u8>, name: &str) {
    json.push(b',');
    quote(json, name);
    json.push(b':');
}

fn quote(json: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(json, text);
}
