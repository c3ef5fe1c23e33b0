//! Server-side apply and `metadata.managedFields`.
//!
//! Flow: a PATCH of type apply goes through [`apply`]; every other write of a client goes through [`track_update`] after
//! admission and defaults, just before it is stored.
//! Always: no IO, no clock; fields and conflicts are worded as structured-merge-diff words them; applying the same again changes nothing.

mod conflicts;
mod entries;
mod last_applied;
mod merge;
mod path;
mod shape;
#[cfg(test)]
mod tests;
mod types;
mod versions;
mod walk;
mod zero;

use serde_json::{Value, json};

pub use conflicts::Conflicts;
pub use types::TypeInfo;
pub use versions::{Unconverted, Versions};

use conflicts::conflicts;
use entries::Entries;
use last_applied::{last_applied_fields, refresh_last_applied};
use merge::{Found, Refusal, merge_owned, update};
use types::Kind;

/// Who writes, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands for it (the user agent up to the first `/`).
    pub manager: &'a str,
    /// Empty, `status` or `scale`.
    pub subresource: &'a str,
    /// RFC 3339, seconds, `Z`.
    pub now: &'a str,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// Other managers own fields to which this one wants to give another value (409 `Conflict`).
    Conflicts(Conflicts),
    /// The applied object cannot be used (400 `BadRequest`).
    Invalid(String),
    /// The applied object does not have the shape of its kind. The real server answers 500 without a reason; the sentence is meant for users.
    Untyped(String),
    /// The object is not there in the version of a manager (500).
    Unconverted(String),
}

impl From<Unconverted> for ApplyError {
    fn from(Unconverted(detail): Unconverted) -> Self {
        Self::Unconverted(detail)
    }
}

impl From<Refusal> for ApplyError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflicts(found) => Self::Conflicts(conflicts(&found)),
            Refusal::Unconverted(missing) => missing.into(),
        }
    }
}

/// Merges `applied` into `live` for a manager. The answer carries `metadata.managedFields`; defaults and validation come after.
/// An answer equal to `live` means that nothing is to be written.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
    types: TypeInfo<'_>,
) -> Result<Value, ApplyError> {
    let version = api_version(applied);
    check_request(live, applied)?;
    check_shape(applied, types)?;

    let mut entries = live
        .map_or_else(|| Some(Entries::new()), entries::read)
        .unwrap_or_default();
    let mut base = live.cloned().unwrap_or_else(|| json!({}));
    entries::remove(&mut base);
    if entries.is_empty() && live.is_some() {
        let before = Writer {
            manager: entries::BEFORE_FIRST_APPLY,
            ..writer
        };
        update(&types.blank(), &base, &mut entries, before, version, types)?;
    }

    let (mut result, mut entries) =
        merge_or_migrate(&base, applied, &entries, writer, force, types)?;
    entries::cap(&mut entries);
    if writer.manager == "kubectl" {
        refresh_last_applied(&mut result, applied);
    }
    if matches!(types.of, Kind::Builtin(_)) {
        drop_nulls(&mut result);
    } else if let Some(metadata) = result.get_mut("metadata") {
        drop_nulls(metadata);
        drop_emptied(&mut result, &base);
    }
    entries::write(&mut result, &entries);
    Ok(result)
}

/// Refuses an applied object of another version than the live one, and one that brings `managedFields`.
fn check_request(live: Option<&Value>, applied: &Value) -> Result<(), ApplyError> {
    let version = api_version(applied);
    if let Some(live) = live
        && api_version(live) != version
    {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            api_version(live)
        )));
    }
    if applied
        .get("metadata")
        .and_then(|m| m.get("managedFields"))
        .is_some_and(|listed| !listed.is_null())
    {
        return Err(ApplyError::Invalid(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    Ok(())
}

/// Merges; what kubectl applied from the client, and nobody changed since, counts as its own.
fn merge_or_migrate(
    base: &Value,
    applied: &Value,
    entries: &Entries,
    writer: Writer<'_>,
    force: bool,
    types: TypeInfo<'_>,
) -> Result<(Value, Entries), Refusal> {
    let conflicts = match merge_owned(base, applied, entries, writer, force, types) {
        Err(Refusal::Conflicts(conflicts)) if writer.manager == "kubectl" => conflicts,
        other => return other,
    };
    let Some(own) = last_applied_fields(base, api_version(applied), types) else {
        return Err(Refusal::Conflicts(conflicts));
    };
    let foreign: Found = conflicts
        .into_iter()
        .filter(|(_, path)| !own.has(path))
        .collect();
    if foreign.is_empty() {
        merge_owned(base, applied, entries, writer, true, types)
    } else {
        Err(Refusal::Conflicts(foreign))
    }
}

/// Updates `metadata.managedFields` of `new` for an ordinary create (`live` is none), update or patch.
///
/// A client may write the list itself (kubectl does when it moves from client-side to server-side apply); an empty one forgets all.
pub fn track_update(
    live: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
    types: TypeInfo<'_>,
) -> Result<(), Unconverted> {
    let before = live.and_then(entries::read).unwrap_or_default();
    let mut entries = if writer.subresource.is_empty() && entries::is_reset(new) {
        Entries::new()
    } else {
        match entries::read(new) {
            Some(sent) if writer.subresource.is_empty() && !sent.is_empty() => sent,
            _ => before,
        }
    };
    entries::remove(new);
    // An update does not begin to track an object that has no entries.
    if live.is_some() && entries.is_empty() {
        return Ok(());
    }
    let version = api_version(new).to_owned();
    let blank;
    let old = match live {
        Some(live) => live,
        None => {
            blank = types.blank();
            &blank
        }
    };
    update(old, new, &mut entries, writer, &version, types)?;
    entries::cap(&mut entries);
    entries::write(new, &entries);
    Ok(())
}

fn api_version(object: &Value) -> &str {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Refuses an applied object that has fields its kind does not have, or list items without their keys.
fn check_shape(applied: &Value, types: TypeInfo<'_>) -> Result<(), ApplyError> {
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let unknown = match types.of {
        Kind::Builtin(of) => crate::schema::unknown_fields_of(of, applied)
            .into_iter()
            .next(),
        Kind::Custom(schema) => schema.unknown_fields(applied).into_iter().next(),
        Kind::Untyped => None,
    };
    let found = match unknown {
        Some(path) => Err(format!(".{path}: field not declared in schema")),
        None => walk::check(applied, types.shape(), &mut Vec::new()),
    };
    found.map_err(|detail| {
        let metadata = applied.get("metadata").unwrap_or(&Value::Null);
        ApplyError::Untyped(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {detail}",
            text(metadata, "namespace"),
            text(metadata, "name"),
            api_version(applied),
            text(applied, "kind")
        ))
    })
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Drops the nulls of fields that had a value before.
fn drop_emptied(value: &mut Value, before: &Value) {
    if let (Value::Object(fields), Value::Object(before)) = (value, before) {
        fields
            .retain(|name, value| !value.is_null() || before.get(name).is_none_or(Value::is_null));
        for (name, value) in fields {
            if let Some(before) = before.get(name) {
                drop_emptied(value, before);
            }
        }
    }
}
