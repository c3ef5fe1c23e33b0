//! Looking into JSON objects whose shape is known but whose fields may be absent.

use std::collections::BTreeMap;

use serde_json::Value;

static NULL: Value = Value::Null;

/// A field, or null.
pub(super) fn at<'a>(value: &'a Value, field: &str) -> &'a Value {
    value.get(field).unwrap_or(&NULL)
}

/// Whether a field is there and not null.
pub(super) fn has(value: &Value, field: &str) -> bool {
    !at(value, field).is_null()
}

/// A text field, empty if absent.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    at(value, field).as_str().unwrap_or_default()
}

/// A number field, if it is there.
pub(super) fn number(value: &Value, field: &str) -> Option<i64> {
    at(value, field).as_i64()
}

/// A list field, empty if absent.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    at(value, field)
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A map of texts, empty if absent.
pub(super) fn map(value: &Value, field: &str) -> BTreeMap<String, String> {
    let pairs = at(value, field).as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// The names of the fields that are there.
pub(super) fn fields(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, _)| key.as_str())
}

/// Nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    fields(value).next().is_none()
}
