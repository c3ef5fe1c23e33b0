//! The cells of Events, of the core group and of events.k8s.io, which has other names for the same fields.

use jiff::Timestamp;
use serde_json::Value;

use super::Row;
use crate::object::{number, text};
use crate::table::age;

/// Returns the first of two fields that holds a text.
fn either(object: &Value, a: &str, b: &str) -> String {
    match text(object, &[a]) {
        "" => text(object, &[b]).to_owned(),
        value => value.to_owned(),
    }
}

pub(super) fn event(row: Row<'_>, now: Timestamp) -> Vec<Value> {
    let object = row.object;
    let occurrences = Occurrences::of(object, now);
    let about = object
        .get("involvedObject")
        .or_else(|| object.get("regarding"))
        .unwrap_or(&Value::Null);
    vec![
        occurrences.last.into(),
        text(object, &["type"]).into(),
        text(object, &["reason"]).into(),
        reference(about).into(),
        text(about, &["fieldPath"]).into(),
        source(object).into(),
        either(object, "message", "note").trim().into(),
        occurrences.first.into(),
        occurrences.count.into(),
        row.name,
    ]
}

/// How often an event occurred and how long ago.
struct Occurrences {
    first: String,
    last: String,
    count: i64,
}

impl Occurrences {
    fn of(object: &Value, now: Timestamp) -> Self {
        let ago = |time: &str| (!time.is_empty()).then(|| age::since(Some(time), now));
        let first = ago(&either(
            object,
            "firstTimestamp",
            "deprecatedFirstTimestamp",
        ))
        .or_else(|| ago(text(object, &["eventTime"])))
        .unwrap_or_else(|| "<unknown>".to_owned());
        let mut last = ago(&either(object, "lastTimestamp", "deprecatedLastTimestamp"))
            .unwrap_or_else(|| first.clone());
        let mut count = number(object, &["count"])
            .or_else(|| number(object, &["deprecatedCount"]))
            .unwrap_or(0);
        if let Some(series) = object.get("series").filter(|series| series.is_object()) {
            last = ago(text(series, &["lastObservedTime"])).unwrap_or(last);
            count = number(series, &["count"]).unwrap_or(count);
        } else if count == 0 {
            count = 1;
        }
        Self { first, last, count }
    }
}

/// Returns `kind/name` of the object that the event is about.
fn reference(about: &Value) -> String {
    let kind = text(about, &["kind"]).to_lowercase();
    match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

/// Returns the component that reported the event, and its host.
fn source(object: &Value) -> String {
    let from = object
        .get("source")
        .or_else(|| object.get("deprecatedSource"))
        .unwrap_or(&Value::Null);
    let component = match text(from, &["component"]) {
        "" => either(object, "reportingComponent", "reportingController"),
        component => component.to_owned(),
    };
    let host = match text(from, &["host"]) {
        "" => text(object, &["reportingInstance"]),
        host => host,
    };
    if host.is_empty() || host == component {
        component
    } else {
        format!("{component}, {host}")
    }
}
