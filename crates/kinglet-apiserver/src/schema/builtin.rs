//! Built-in kinds: unknown fields and wrong JSON types, found with the field table.

use serde_json::Value;

use super::formats;
use crate::fields::{Struct, Type, table};

/// Fields of a built-in kind's object that the kind does not have, as `unknown field "spec.foo"`. Unknown kinds have none.
pub fn unknown_fields_builtin(
    group: &str,
    version: &str,
    kind: &str,
    object: &Value,
) -> Vec<String> {
    prune_builtin(group, version, kind, &mut object.clone())
}

/// Removes the fields that [`unknown_fields_builtin`] names.
pub fn prune_builtin(group: &str, version: &str, kind: &str, object: &mut Value) -> Vec<String> {
    let Some(of) = table().kind(group, version, kind) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    prune_struct(of, object, &mut String::new(), &mut found);
    found
        .into_iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect()
}

/// Paths of unknown fields.
pub(crate) fn unknown_fields_of(of: &'static Struct, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    prune_struct(of, &mut object.clone(), &mut String::new(), &mut found);
    found
}

/// Removes unknown fields of a custom resource's metadata.
pub(super) fn prune_metadata(value: &mut Value, path: &mut String, found: &mut Vec<String>) {
    if let Some(of) = table().named_struct("meta/v1.ObjectMeta") {
        prune_struct(of, value, path, found);
    }
}

fn prune_struct(
    of: &'static Struct,
    value: &mut Value,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        let known = table().field(of, name);
        match known {
            Some(field) => prune_type(field.kind, value, path, found),
            None => found.push(path.clone()),
        }
        path.truncate(length);
        known.is_some()
    });
}

fn prune_type(kind: Type, value: &mut Value, path: &mut String, found: &mut Vec<String>) {
    match (table().plain(kind), value) {
        (kind @ Type::Struct(_), value) => {
            if let Some(of) = table().structure(kind) {
                prune_struct(of, value, path, found);
            }
        }
        (Type::List(at), Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                prune_type(table().element(at), item, path, found);
                path.truncate(length);
            }
        }
        (Type::Map(at), Value::Object(fields)) => {
            for (name, item) in fields.iter_mut() {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                prune_type(table().element(at), item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Checks the JSON types of a built-in kind's object. The error is Go's, without the sentence around it:
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn check_types_builtin(
    group: &str,
    version: &str,
    kind: &str,
    object: &Value,
) -> Result<(), String> {
    match table().kind(group, version, kind) {
        Some(of) => check_struct(of, object, &mut Vec::new()),
        None => Ok(()),
    }
}

/// The same for `metadata` of a custom resource.
pub fn check_metadata(object: &Value) -> Result<(), String> {
    let (Some(of), Some(metadata)) = (
        table().named_struct("meta/v1.ObjectMeta"),
        object.get("metadata"),
    ) else {
        return Ok(());
    };
    match metadata {
        Value::Null => Ok(()),
        Value::Object(_) => check_struct(of, metadata, &mut vec!["metadata"]),
        other => Err(format!(
            "json: cannot unmarshal {} into Go struct field .metadata of type v1.ObjectMeta",
            json_name(other)
        )),
    }
}

fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_struct<'v>(
    of: &'static Struct,
    value: &'v Value,
    path: &mut Vec<&'v str>,
) -> Result<(), String> {
    let Value::Object(fields) = value else {
        return Ok(());
    };
    for (name, value) in fields {
        if let Some(field) = table().field(of, name) {
            path.push(name);
            check_type(field.kind, of, value, path)?;
            path.pop();
        }
    }
    Ok(())
}

fn check_type<'v>(
    kind: Type,
    of: &'static Struct,
    value: &'v Value,
    path: &mut Vec<&'v str>,
) -> Result<(), String> {
    let plain = table().plain(kind);
    let wrong = |what: &str| {
        Err(format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {}",
            of.name(),
            path.join("."),
            table().go_name(kind)
        ))
    };
    match (plain, value) {
        (_, Value::Null)
        | (Type::Any | Type::Raw | Type::FieldsV1, _)
        | (Type::Text, Value::String(_))
        | (Type::Bool, Value::Bool(_))
        | (Type::Float, Value::Number(_)) => Ok(()),
        (Type::Int32, Value::Number(number))
            if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
        {
            Ok(())
        }
        (Type::Int64, Value::Number(number)) if number.is_i64() => Ok(()),
        (Type::Int32 | Type::Int64, Value::Number(number)) => wrong(&format!("number {number}")),
        (Type::Bytes, Value::String(text)) => check_base64(text),
        (Type::Quantity, Value::String(text)) => check_quantity(text),
        (Type::Quantity, Value::Number(number)) => check_quantity(&number.to_string()),
        (Type::Quantity, _) => check_quantity(""),
        (Type::IntOrString, Value::String(_) | Value::Number(_)) => Ok(()),
        (Type::IntOrString, other) => Err(format!(
            "json: cannot unmarshal {} into Go value of type int32",
            json_name(other)
        )),
        (Type::Time | Type::MicroTime, Value::String(text)) => check_time(text),
        (Type::Duration, Value::String(text)) => check_duration(text),
        (Type::Time | Type::MicroTime | Type::Duration, other) => Err(format!(
            "json: cannot unmarshal {} into Go value of type string",
            json_name(other)
        )),
        (Type::Struct(_), Value::Object(_)) => match table().structure(plain) {
            Some(inner) => check_struct(inner, value, path),
            None => Ok(()),
        },
        (Type::List(at), Value::Array(items)) => items
            .iter()
            .try_for_each(|item| check_type(table().element(at), of, item, path)),
        (Type::Map(at), Value::Object(fields)) => fields
            .values()
            .try_for_each(|item| check_type(table().element(at), of, item, path)),
        (
            Type::Text
            | Type::Bool
            | Type::Int32
            | Type::Int64
            | Type::Float
            | Type::Bytes
            | Type::Struct(_)
            | Type::List(_)
            | Type::Map(_)
            | Type::Named(_),
            other,
        ) => wrong(json_name(other)),
    }
}

fn check_time(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )),
    }
}

fn check_duration(text: &str) -> Result<(), String> {
    if formats::is_duration(text) {
        Ok(())
    } else {
        Err(format!("time: invalid duration {text:?}"))
    }
}

fn check_base64(text: &str) -> Result<(), String> {
    use base64::Engine as _;
    let clean: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    match base64::engine::general_purpose::STANDARD.decode(&clean) {
        Ok(_) => Ok(()),
        Err(
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _),
        ) => Err(format!("illegal base64 data at input byte {at}")),
        Err(base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding) => Err(
            format!("illegal base64 data at input byte {}", clean.len() / 4 * 4),
        ),
    }
}

/// Sign, digits with at most one point, suffix.
fn check_quantity(text: &str) -> Result<(), String> {
    let bare = text.trim().strip_prefix(['+', '-']).unwrap_or(text.trim());
    let digits = bare.len()
        - bare
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            .len();
    let (number, suffix) = bare.split_at(digits);
    let sound = number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = || {
        suffix.strip_prefix(['e', 'E']).is_some_and(|rest| {
            let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let known = matches!(
        suffix,
        "" | "n"
            | "u"
            | "m"
            | "k"
            | "M"
            | "G"
            | "T"
            | "P"
            | "E"
            | "Ki"
            | "Mi"
            | "Gi"
            | "Ti"
            | "Pi"
            | "Ei"
    );
    if sound && (known || exponent()) {
        Ok(())
    } else if sound && suffix.bytes().all(|b| b"eEinumkKMGTP".contains(&b)) {
        Err("unable to parse quantity's suffix".to_owned())
    } else {
        Err("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned())
    }
}
