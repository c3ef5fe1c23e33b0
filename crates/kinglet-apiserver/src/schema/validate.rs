//! Values against their schema, in the words of the real server.

use serde_json::{Value, json};

use super::FieldError;
use super::formats::Format;
use super::node::{Kind, Limits, Node};
use crate::fields::ListKind;

/// Errors that one object may collect; more help nobody.
const ERRORS_MAX: usize = 100;

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Of what type a value is, as the real server says it.
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
    if node.int_or_string {
        if !matches!(value, Value::String(_)) && !matches!(value, Value::Number(n) if is_integer(n))
        {
            found.push(wrong_type(path, "integer,string", value));
            return;
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
            return;
        }
    }
    if let Some(limits) = &node.limits {
        check_limits(limits, value, path, found);
    }
    let resource = resource || node.embedded;
    match value {
        Value::Object(fields) => {
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

/// Sets and lists with keys hold nothing twice.
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

fn check_limits(limits: &Limits, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    let mut invalid = |detail: String| {
        found.push(FieldError::invalid(
            path,
            value,
            &format!("{path} in body {detail}"),
        ))
    };
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(min) = limits.min_length.filter(|min| length < *min) {
                invalid(format!("should be at least {min} chars long"));
            }
            if let Some(pattern) = limits
                .pattern
                .as_ref()
                .filter(|pattern| !pattern.is_match(text))
            {
                invalid(format!("should match '{pattern}'"));
            }
            if let Some(format) = limits.format.filter(|format| !format.fits(text)) {
                let message = format!("{path} in body must be of type {}: {value}", format.name());
                found.push(FieldError {
                    reason: "FieldValueTypeInvalid",
                    ..FieldError::invalid(path, value, &message)
                });
            }
            if let Some(max) = limits.max_length.filter(|max| length > *max) {
                let unit = if max == 1 { "byte" } else { "bytes" };
                let message = format!("Too long: may not be more than {max} {unit}");
                found.push(FieldError {
                    field: path.to_owned(),
                    reason: "FieldValueTooLong",
                    message,
                });
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(0.0);
            match limits.minimum {
                Some((min, true)) if number <= min => {
                    invalid(format!("should be greater than {min}"))
                }
                Some((min, false)) if number < min => {
                    invalid(format!("should be greater than or equal to {min}"))
                }
                _ => {}
            }
            match limits.maximum {
                Some((max, true)) if number >= max => invalid(format!("should be less than {max}")),
                Some((max, false)) if number > max => {
                    invalid(format!("should be less than or equal to {max}"))
                }
                _ => {}
            }
            if let Some(step) = limits
                .multiple_of
                .filter(|step| *step > 0.0 && (number / step).fract() != 0.0)
            {
                invalid(format!("should be a multiple of {step}"));
            }
            if limits.format == Some(Format::Int32)
                && (number > f64::from(i32::MAX) || number < f64::from(i32::MIN))
            {
                invalid(format!("must be of type int32: {value}"));
            }
        }
        Value::Array(items) => {
            let length = items.len() as u64;
            if let Some(min) = limits.min_items.filter(|min| length < *min) {
                invalid(format!("should have at least {min} items"));
            }
            if limits.unique
                && items
                    .iter()
                    .enumerate()
                    .any(|(at, item)| items[..at].contains(item))
            {
                invalid("shouldn't contain duplicates".to_owned());
            }
            too_many(limits.max_items, length, path, found);
        }
        Value::Object(fields) => {
            let length = fields.len() as u64;
            if let Some(min) = limits.min_properties.filter(|min| length < *min) {
                invalid(format!("should have at least {min} properties"));
            }
            too_many(limits.max_properties, length, path, found);
        }
        Value::Null | Value::Bool(_) => {}
    }
    if !limits.allowed.is_empty() && !limits.allowed.contains(value) {
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let allowed: Vec<String> = limits.allowed.iter().map(plain).collect();
        found.push(FieldError::unsupported(
            path,
            value,
            &allowed.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
    }
    check_combined(limits, value, path, found);
}

fn too_many(max: Option<u64>, length: u64, path: &str, found: &mut Vec<FieldError>) {
    if let Some(max) = max.filter(|max| length > *max) {
        let unit = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {length}: must have at most {max} {unit}");
        found.push(FieldError {
            field: path.to_owned(),
            reason: "FieldValueTooMany",
            message,
        });
    }
}

/// allOf, anyOf, oneOf, not. The real server says these about no field in particular.
fn check_combined(limits: &Limits, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    let errors = |node: &Node| {
        let mut errors = Vec::new();
        walk(node, value, false, path, &mut errors);
        errors
    };
    let said = |detail: String| FieldError {
        field: "<nil>".to_owned(),
        ..FieldError::invalid("", &json!(""), &detail)
    };
    let mut combined = Vec::new();
    for node in &limits.all_of {
        let inner = errors(node);
        if !inner.is_empty() {
            combined.push(said(format!(
                "\"{path}\" must validate all the schemas (allOf)"
            )));
            combined.extend(inner);
        }
    }
    if !limits.any_of.is_empty() {
        let each: Vec<_> = limits.any_of.iter().map(errors).collect();
        if each.iter().all(|inner| !inner.is_empty()) {
            combined.push(said(format!(
                "\"{path}\" must validate at least one schema (anyOf)"
            )));
            combined.extend(each.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if !limits.one_of.is_empty() {
        let valid = limits
            .one_of
            .iter()
            .filter(|node| errors(node).is_empty())
            .count();
        if valid != 1 {
            let how = if valid == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {valid} valid alternatives")
            };
            combined.push(said(format!(
                "\"{path}\" must validate one and only one schema (oneOf). {how}"
            )));
        }
    }
    if limits
        .not
        .as_deref()
        .is_some_and(|node| errors(node).is_empty())
    {
        combined.push(said(format!(
            "\"{path}\" must not validate the schema (not)"
        )));
    }
    found.extend(combined);
}
