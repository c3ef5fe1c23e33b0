//! Quantities in objects: text, or a number as typed clients send one.

pub(crate) use kinglet_quantity::Quantity;
use serde_json::Value;

/// The quantity that a value is, if it is one.
pub(crate) fn of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
