//! Values as Go's templates print, compare and judge them.

use serde_json::Value;

pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        // A Go value with a `String` method, as `url.URL` has.
        Value::Object(map) if map.contains_key("String") => print(&map["String"]),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(print).collect();
            format!("[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub(super) fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Go's `Header.Get`: the first value under the name, in whatever case, or nothing.
pub(super) fn get(map: &Value, arguments: &[Value]) -> Option<Value> {
    let [Value::String(name)] = arguments else {
        return None;
    };
    let found = map
        .as_object()
        .and_then(|map| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
        .and_then(|(_, values)| values.get(0).cloned());
    Some(found.unwrap_or_else(|| Value::from("")))
}

/// Returns a floating-point constant, whole ones as integers, since Go prints those without a point.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and of a size that an integer holds exactly"
)]
pub(super) fn float(number: f64) -> Value {
    /// The largest power of two up to which an `f64` holds every integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}
