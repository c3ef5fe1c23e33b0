//! Filling in the fields of JSON objects: what an API server does before it judges.

use serde_json::{Map, Value};

use crate::Quantity;

/// The fields of an object.
pub type Fields = Map<String, Value>;

/// Returns whether a value is missing, null or empty.
pub fn blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => false,
    }
}

/// Returns the fields of a value, which becomes an object if it is none.
pub fn fields(value: &mut Value) -> &mut Fields {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

/// Returns the object under a key, made if missing.
pub fn child<'a>(fields: &'a mut Fields, key: &str) -> &'a mut Fields {
    if !fields.get(key).is_some_and(Value::is_object) {
        fields.insert(key.to_owned(), Value::Object(Map::new()));
    }
    fields
        .get_mut(key)
        .and_then(Value::as_object_mut)
        .expect("made an object above")
}

/// Returns the objects in a list of objects.
pub fn each<'a>(fields: &'a mut Fields, key: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Sets a field unless something is there.
pub fn default(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    if fields.get(key).is_none_or(Value::is_null) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Sets a text field unless a non-empty one is there.
pub fn default_text(fields: &mut Fields, key: &str, value: &str) {
    if blank(fields.get(key)) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Sets a number field unless one other than 0 is there.
pub fn default_number(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    if fields.get(key).is_none_or(|old| old.is_null() || *old == 0) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Returns the quantity that a value is: text, or a number as typed clients send one.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
