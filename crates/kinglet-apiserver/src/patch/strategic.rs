//! Strategic merge: a merge patch whose lists merge by key, with directives among the fields.
//!
//! Directives: `$patch: replace|delete|merge` in an object or as a list item; `$retainKeys`, `$setElementOrder/FIELD` and
//! `$deleteFromPrimitiveList/FIELD` beside a field.

use serde_json::{Map, Value};

use super::PatchError;
use crate::fields::{Field, Struct, Type, table};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// The field table's knowledge of an object.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Struct(&'static Struct),
    /// A map of such values.
    Map(Type),
    /// Nothing: lists within are replaced.
    Unknown,
}

impl Shape {
    fn of(kind: Type) -> Self {
        let kind = table().plain(kind);
        match kind {
            Type::Struct(_) => table().structure(kind).map_or(Self::Unknown, Self::Struct),
            Type::Map(at) => Self::Map(table().element(at)),
            _ => Self::Unknown,
        }
    }

    fn field(self, name: &str) -> (Self, Option<&'static Field>) {
        match self {
            Self::Struct(of) => match table().field(of, name) {
                Some(field) => (Self::of(field.kind), Some(field)),
                None => (Self::Unknown, None),
            },
            Self::Map(element) => (Self::of(element), None),
            Self::Unknown => (Self::Unknown, None),
        }
    }
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// Merges a patch into an object.
pub(super) fn object(
    current: &Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(what)) if what == "replace" => return Ok(plain(patch)),
        Some(Value::String(what)) if what == "delete" => return Ok(Map::new()),
        Some(Value::String(what)) if what == "merge" => {}
        Some(other) => return Err(malformed(format!("unknown patch type found: {other}"))),
    }
    let mut result = current.clone();
    if let Some(keys) = patch.get(RETAIN) {
        retain_keys(&mut result, patch, keys)?;
    }
    for (name, change) in patch {
        if name == DIRECTIVE || name == RETAIN {
            continue;
        }
        if let Some(of) = name.strip_prefix(DELETE) {
            if let (Some(Value::Array(items)), Some(gone)) = (result.get_mut(of), change.as_array())
            {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with(ORDER) {
            continue;
        }
        change_field(&mut result, patch, name, change, shape)?;
    }
    reorder(&mut result, patch, shape)?;
    Ok(result)
}

/// `$retainKeys`: removes the fields that the list does not name.
fn retain_keys(
    result: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), PatchError> {
    let keys = keys
        .as_array()
        .ok_or_else(|| malformed("invalid patch format of retainKeys"))?;
    for name in patch
        .iter()
        .filter(|(name, value)| !name.starts_with('$') && !value.is_null())
        .map(|(name, _)| name)
    {
        if !keys.iter().any(|key| key.as_str() == Some(name)) {
            return Err(malformed(
                "retainKeys doesn't contain all keys set in the patch",
            ));
        }
    }
    result.retain(|name, _| keys.iter().any(|key| key.as_str() == Some(name)));
    Ok(())
}

/// Merges the change of one field.
fn change_field(
    result: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    name: &str,
    change: &Value,
    shape: Shape,
) -> Result<(), PatchError> {
    let (below, field) = shape.field(name);
    let order = patch.get(&format!("{ORDER}{name}"));
    match change {
        Value::Null => {
            result.remove(name);
        }
        Value::Object(changes) => {
            let merged = match result.get(name) {
                Some(Value::Object(now)) => object(now, changes, below)?,
                _ if changes.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => Map::new(),
                _ => object(&Map::new(), changes, below)?,
            };
            if merged.is_empty() && changes.get(DIRECTIVE).and_then(Value::as_str) == Some("delete")
            {
                result.remove(name);
            } else {
                result.insert(name.to_owned(), Value::Object(merged));
            }
        }
        Value::Array(changes) => {
            let now = result
                .get(name)
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            let merged = list(now, changes, order, field)?;
            result.insert(name.to_owned(), Value::Array(merged));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            result.insert(name.to_owned(), change.clone());
        }
    }
    Ok(())
}

/// Reorders the lists of which the patch gives only the order.
fn reorder(
    result: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape,
) -> Result<(), PatchError> {
    for (name, order) in patch
        .iter()
        .filter_map(|(name, order)| Some((name.strip_prefix(ORDER)?, order)))
    {
        if patch.contains_key(name) {
            continue;
        }
        let (_, field) = shape.field(name);
        if let (Some(Value::Array(items)), Some(field)) = (result.get_mut(name), field) {
            let live = std::mem::take(items);
            *items = ordered(live.clone(), listed(order)?, &live, field.merge_key);
        }
    }
    Ok(())
}

/// Returns a patch without its directives, which is the object that it creates.
fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn list(
    now: &[Value],
    changes: &[Value],
    order: Option<&Value>,
    field: Option<&'static Field>,
) -> Result<Vec<Value>, PatchError> {
    let Some(field) = field.filter(|field| field.patch_merge) else {
        return Ok(changes
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .cloned()
            .collect());
    };
    let replaces = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace");
    if changes
        .iter()
        .any(|item| item.as_object().is_some_and(|o| o.len() == 1) && replaces(item))
    {
        return Ok(changes
            .iter()
            .filter(|item| !replaces(item))
            .cloned()
            .collect());
    }
    let mut merged: Vec<Value> = now.to_vec();
    match field.merge_key {
        Some(key) => {
            let below = match table().plain(field.kind) {
                Type::List(at) => Shape::of(table().element(at)),
                _ => Shape::Unknown,
            };
            for change in changes {
                keyed(&mut merged, change, key, below)?;
            }
        }
        None => {
            for change in changes {
                if !merged.contains(change) {
                    merged.push(change.clone());
                }
            }
        }
    }
    let wanted: Vec<Value> = changes
        .iter()
        .filter(|item| item.get(DIRECTIVE).is_none())
        .cloned()
        .collect();
    if !now.is_empty() {
        merged = ordered(merged, &wanted, now, field.merge_key);
    }
    match order {
        Some(order) => Ok(ordered(merged, listed(order)?, now, field.merge_key)),
        None => Ok(merged),
    }
}

fn listed(order: &Value) -> Result<&[Value], PatchError> {
    order
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| malformed("invalid patch format of setElementOrder list"))
}

/// Merges one item of a patch into a list whose items have a key.
fn keyed(
    merged: &mut Vec<Value>,
    change: &Value,
    key: &str,
    below: Shape,
) -> Result<(), PatchError> {
    let Value::Object(fields) = change else {
        return Err(malformed(format!(
            "expected an object with the key {key} in a list, got {change}"
        )));
    };
    let wanted = fields.get(key).ok_or_else(|| {
        malformed(format!(
            "map: {change} does not contain declared merge key: {key}"
        ))
    })?;
    let place = merged.iter().position(|item| item.get(key) == Some(wanted));
    match (fields.get(DIRECTIVE).and_then(Value::as_str), place) {
        (Some("delete"), _) => merged.retain(|item| item.get(key) != Some(wanted)),
        (Some("replace"), Some(at)) => merged[at] = Value::Object(plain(fields)),
        (_, Some(at)) => {
            let empty = Map::new();
            let now = merged[at].as_object().unwrap_or(&empty);
            merged[at] = Value::Object(object(now, fields, below)?);
        }
        (_, None) => merged.push(Value::Object(object(&Map::new(), fields, below)?)),
    }
    Ok(())
}

/// Puts the items that an order names into that order, and the others (the server's) among them as they lie in `live`: an item of the
/// server comes before the first named one that it preceded there, else as late as can be.
fn ordered(items: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|other| match key {
            Some(key) => other.get(key).is_some() && other.get(key) == item.get(key),
            None => other == item,
        })
    };
    let mut named = Vec::new();
    let mut servers = Vec::new();
    for item in items {
        match place(order, &item) {
            Some(rank) => named.push((rank, item)),
            None => servers.push((place(live, &item).unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(rank, _)| *rank);
    servers.sort_by_key(|(rank, _)| *rank);
    let mut sorted = Vec::with_capacity(named.len() + servers.len());
    let mut servers = servers.into_iter().peekable();
    for (_, item) in named {
        if let Some(at) = place(live, &item) {
            while let Some((_, server)) = servers.next_if(|(rank, _)| *rank < at) {
                sorted.push(server);
            }
        }
        sorted.push(item);
    }
    sorted.extend(servers.map(|(_, item)| item));
    sorted
}
