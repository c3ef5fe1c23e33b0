//! The two forms of an Event: core/v1, as stored, and events.k8s.io/v1.

use serde_json::{Map, Value};

/// (core name, events.k8s.io name); everything else is the same in both.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(event: &Value, version: &str, pairs: impl Fn(&str) -> Option<&'static str>) -> Value {
    let mut out = Map::new();
    for (key, value) in event.as_object().into_iter().flatten() {
        out.insert(pairs(key).unwrap_or(key).to_owned(), value.clone());
    }
    out.insert("apiVersion".to_owned(), version.into());
    Value::Object(out)
}

/// The stored event for a client of events.k8s.io.
pub(crate) fn to_events_v1(event: &Value) -> Value {
    rename(event, "events.k8s.io/v1", |key| {
        RENAMED
            .iter()
            .find(|(old, _)| *old == key)
            .map(|(_, new)| *new)
    })
}

/// An event of events.k8s.io as it is stored.
pub(crate) fn from_events_v1(event: &Value) -> Value {
    rename(event, "v1", |key| {
        RENAMED
            .iter()
            .find(|(_, new)| *new == key)
            .map(|(old, _)| *old)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_translate_back_and_forth() {
        let server = serde_json::json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"kind": "Pod"}, "type": "Normal", "count": 2});
        let new = to_events_v1(&server);
        assert_eq!(new["note"], "m");
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(from_events_v1(&new), server);
    }
}
