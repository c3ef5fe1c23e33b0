//! Tables: rows and columns exactly as `kubectl get` prints them.

mod age;
mod columns;
mod pods;
mod rows;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::builtin_kind::Builtin;
use crate::kinds::Kind;
use crate::object::{self, text};
use crate::printer_columns::{Column, Columns};

/// How much of the object comes with each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Bare,
    Metadata,
    Object,
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// `columnDefinitions`.
pub(crate) fn definitions(kind: &Kind) -> Value {
    let one = |name: &str, kind: &str, format: &str, description: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority});
    match &kind.columns {
        Columns::Builtin(builtin) => columns::of(*builtin)
            .iter()
            .map(|(name, kind, priority)| {
                let format = if *name == "Name" { "name" } else { "" };
                one(
                    name,
                    kind,
                    format,
                    if *name == "Name" { NAME } else { "" },
                    *priority,
                )
            })
            .collect(),
        Columns::Custom(list) => std::iter::once(one("Name", "string", "name", NAME, 0))
            .chain(
                list.iter()
                    .map(|c| one(&c.name, &c.kind, &c.format, &c.description, c.priority)),
            )
            .collect(),
    }
}

/// One row.
pub(crate) fn row(kind: &Kind, object: &Value, with: Rows, version: &str, now: Timestamp) -> Value {
    let cells = match &kind.columns {
        Columns::Builtin(builtin) => rows::cells(*builtin, object, now),
        Columns::Custom(list) => {
            let mut cells = vec![Value::from(text(object, &["metadata", "name"]))];
            cells.extend(list.iter().map(|column| cell(column, object, now)));
            cells
        }
    };
    let mut row = json!({"cells": cells});
    match with {
        Rows::Bare => row["object"] = Value::Null,
        Rows::Metadata => row["object"] = object::partial(object, version),
        Rows::Object => row["object"] = object.clone(),
    }
    if matches!(kind.columns, Columns::Builtin(Builtin::Pod))
        && let Some(conditions) = pods::row_conditions(object)
    {
        row["conditions"] = conditions;
    }
    row
}

/// The value a printer column points at, in the column's type.
fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.find(object);
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (column.kind.as_str(), first) {
        (_, Value::Null) => Value::Null,
        ("date", value) => age::since(value.as_str(), now).into(),
        ("integer", Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| Value::Number(number.clone()), Value::from),
        ("number", Value::Number(number)) => Value::Number(number.clone()),
        ("boolean", Value::Bool(flag)) => Value::Bool(*flag),
        ("integer" | "number" | "boolean", _) => Value::Null,
        _ => shown(first).into(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
