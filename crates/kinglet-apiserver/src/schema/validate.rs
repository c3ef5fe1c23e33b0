//! Values against their schema, in the words of the real server.

use serde_json::{Map, Value};

use super::FieldError;
use super::limits::check_limits;
use super::node::{Kind, Node};
use crate::fields::ListKind;

/// Most errors that are reported of one object.
const ERRORS_MAX: usize = 100;

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Returns the type of a value as the real server names it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_integer(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integer(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn wrong_type(path: &str, wanted: &str, value: &Value) -> FieldError {
    let got = type_of(value);
    let message =
        format!("Invalid value: \"{got}\": {path} in body must be of type {wanted}: \"{got}\"");
    FieldError {
        field: path.to_owned(),
        reason: "FieldValueTypeInvalid",
        message,
    }
}

/// Checks a value and all below it.
pub(super) fn walk(
    node: &Node,
    value: &Value,
    resource: bool,
    path: &str,
    found: &mut Vec<FieldError>,
) {
    if found.len() >= ERRORS_MAX {
        return;
    }
    if value.is_null() && node.nullable {
        return;
    }
    if !check_type(node, value, path, found) {
        return;
    }
    if let Some(limits) = &node.limits {
        check_limits(limits, value, path, found);
    }
    let resource = resource || node.embedded;
    match value {
        Value::Object(fields) => check_fields(node, fields, resource, path, found),
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (at, item) in items.iter().enumerate() {
                    walk(child, item, false, &format!("{path}[{at}]"), found);
                }
            }
            check_unique(node, items, path, found);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Checks the type of a value; its fields and items are of no interest if it is wrong.
fn check_type(node: &Node, value: &Value, path: &str, found: &mut Vec<FieldError>) -> bool {
    if node.int_or_string {
        if !matches!(value, Value::String(_)) && !matches!(value, Value::Number(n) if is_integer(n))
        {
            found.push(wrong_type(path, "integer,string", value));
            return false;
        }
    } else if let Some(kind) = node.kind {
        let fits = match (kind, value) {
            (Kind::Object, Value::Object(_))
            | (Kind::Array, Value::Array(_))
            | (Kind::Text, Value::String(_))
            | (Kind::Number, Value::Number(_))
            | (Kind::Boolean, Value::Bool(_)) => true,
            (Kind::Integer, Value::Number(number)) => is_integer(number),
            _ => false,
        };
        if !fits {
            found.push(wrong_type(path, kind.name(), value));
            return false;
        }
    }
    true
}

/// Checks the fields of an object, and which ones it must have.
fn check_fields(
    node: &Node,
    fields: &Map<String, Value>,
    resource: bool,
    path: &str,
    found: &mut Vec<FieldError>,
) {
    if node.embedded {
        for name in ["apiVersion", "kind"] {
            if fields
                .get(name)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                found.push(FieldError::required(below(path, name), "must not be empty"));
            }
        }
    }
    for name in &node.required {
        if !fields.contains_key(&**name) {
            found.push(FieldError::required(below(path, name), ""));
        }
    }
    for (name, value) in fields {
        if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(child) = node
            .properties
            .get(name.as_str())
            .or(node.additional.as_deref())
        {
            walk(child, value, false, &below(path, name), found);
        }
    }
}

/// Checks that sets and lists with keys hold no item twice.
fn check_unique(node: &Node, items: &[Value], path: &str, found: &mut Vec<FieldError>) {
    let mut seen = std::collections::HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let key = match node.list {
            ListKind::Atomic => return,
            ListKind::Set => item.clone(),
            ListKind::Map => {
                let child = node.items.as_deref();
                let keys = node.list_keys.iter().filter_map(|name| {
                    let default = || {
                        child
                            .and_then(|c| c.properties.get(&**name))
                            .and_then(|n| n.default.clone())
                    };
                    item.get(&**name)
                        .cloned()
                        .or_else(default)
                        .map(|value| ((**name).to_owned(), value))
                });
                Value::Object(keys.collect())
            }
        };
        if !seen.insert(key.to_string()) {
            found.push(FieldError::duplicate(format!("{path}[{at}]"), &key));
        }
    }
}
