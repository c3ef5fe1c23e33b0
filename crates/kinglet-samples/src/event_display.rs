//! Prints each CloudEvent it receives; with replies, answers `bar` with `foo` and the other way round.

use std::fmt::Write as _;
use std::io::Write as _;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};

use crate::serve::{Answer, Request, text};

/// Brokers carry far smaller events.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// The order in which the CloudEvents SDK prints context attributes.
const CONTEXT: [&str; 8] = [
    "specversion",
    "type",
    "source",
    "subject",
    "id",
    "time",
    "dataschema",
    "datacontenttype",
];

/// Attributes by name, and the data.
struct Event {
    attributes: Map<String, Value>,
    data: Vec<u8>,
}

pub(crate) async fn answer(request: Request, reply: bool) -> Answer {
    let (parts, body) = request.into_parts();
    let data = match Limited::new(body, EVENT_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("reading the event: {error}\n"),
            );
        }
    };
    let event = match parse(&parts.headers, &data) {
        Ok(event) => event,
        Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(display(&event).as_bytes());
    let _ = out.flush();
    drop(out);
    if reply {
        replied(&event)
    } else {
        text(StatusCode::OK, "")
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Event, String> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    if kind.starts_with("application/cloudevents+json") {
        let mut attributes: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| format!("structured event: {error}"))?;
        let data = match attributes.remove("data") {
            Some(Value::String(text)) => text.into_bytes(),
            Some(other) => other.to_string().into_bytes(),
            None => Vec::new(),
        };
        return Ok(Event { attributes, data });
    }
    let mut attributes = Map::new();
    for (name, value) in headers {
        if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("ce-"), value.to_str()) {
            attributes.insert(name.to_owned(), Value::from(value));
        }
    }
    if attributes.is_empty() {
        return Err(
            "not a CloudEvent: neither ce-* headers nor application/cloudevents+json".to_owned(),
        );
    }
    if !kind.is_empty() {
        attributes.insert("datacontenttype".to_owned(), Value::from(kind));
    }
    Ok(Event {
        attributes,
        data: body.to_vec(),
    })
}

fn display(event: &Event) -> String {
    let show = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut out = String::from("☁️  cloudevents.Event\nContext Attributes,\n");
    for name in CONTEXT {
        if let Some(value) = event.attributes.get(name) {
            let _ = writeln!(out, "  {name}: {}", show(value));
        }
    }
    let mut extensions: Vec<_> = event
        .attributes
        .iter()
        .filter(|(name, _)| !CONTEXT.contains(&name.as_str()))
        .collect();
    extensions.sort_by_key(|(name, _)| name.as_str());
    if !extensions.is_empty() {
        out.push_str("Extensions,\n");
        for (name, value) in extensions {
            let _ = writeln!(out, "  {name}: {}", show(value));
        }
    }
    if !event.data.is_empty() {
        out.push_str("Data,\n");
        let pretty = serde_json::from_slice::<Value>(&event.data)
            .ok()
            .and_then(|value| serde_json::to_string_pretty(&value).ok());
        let data = pretty.unwrap_or_else(|| String::from_utf8_lossy(&event.data).into_owned());
        for line in data.lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    out.push('\n');
    out
}

fn replied(event: &Event) -> Answer {
    let kind = match event.attributes.get("type").and_then(Value::as_str) {
        Some("foo") => "bar",
        Some("bar") => "foo",
        _ => return text(StatusCode::OK, ""),
    };
    let mut answer = text(StatusCode::OK, event.data.clone());
    let headers = answer.headers_mut();
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    headers.insert("ce-type", HeaderValue::from_static(kind));
    headers.insert(
        "ce-source",
        HeaderValue::from_static("event-display-with-reply"),
    );
    let id = event
        .attributes
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or("0");
    if let Ok(id) = HeaderValue::from_str(&format!("{id}-reply")) {
        headers.insert("ce-id", id);
    }
    let content = event
        .attributes
        .get("datacontenttype")
        .and_then(Value::as_str)
        .unwrap_or("application/json");
    if let Ok(content) = HeaderValue::from_str(content) {
        headers.insert(CONTENT_TYPE, content);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_the_sdk() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", "t"),
            ("ce-source", "/s"),
            ("ce-id", "1"),
            ("ce-extra", "x"),
            ("content-type", "application/json"),
        ] {
            headers.insert(
                http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let event = parse(&headers, br#"{"a":1}"#).expect("event");
        assert_eq!(
            display(&event),
            "☁️  cloudevents.Event\nContext Attributes,\n  specversion: 1.0\n  type: t\n  source: /s\n  id: 1\n  datacontenttype: application/json\nExtensions,\n  extra: x\nData,\n  {\n    \"a\": 1\n  }\n\n"
        );
        assert!(parse(&HeaderMap::new(), b"x").is_err());
    }
}
