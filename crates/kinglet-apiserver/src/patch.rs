//! The three patches of Kubernetes (server-side apply, the fourth, is in `apply`).
//!
//! Always: a patch that fails leaves its target untouched; no panic whatever the patch.

mod strategic;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not a patch (400 `BadRequest`).
    #[error("{0}")]
    Malformed(String),
    /// The patch is one, but does not fit the object (422 `Invalid`: a JSON patch's test fails, a path leads nowhere).
    #[error("{0}")]
    DoesNotFit(String),
    /// Strategic merge patch of a kind that has no merge keys (415 `UnsupportedMediaType`).
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )]
    Unsupported,
}

/// Operations in one JSON patch; the real server's bound.
const OPERATIONS_MAX: usize = 10_000;

/// RFC 6902. On error the target is as it was.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS_MAX {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}"
        )));
    }
    let parsed: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut changed = target.clone();
    json_patch::patch(&mut changed, &parsed).map_err(|error| {
        PatchError::DoesNotFit(format!(
            "the server rejected our request due to an error in our request: {error}"
        ))
    })?;
    *target = changed;
    Ok(())
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Strategic merge patch of a built-in kind.
pub fn strategic(
    group: &str,
    version: &str,
    kind: &str,
    current: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let of = crate::fields::table()
        .kind(group, version, kind)
        .ok_or(PatchError::Unsupported)?;
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(PatchError::Malformed(
            "a strategic merge patch is an object".to_owned(),
        ));
    };
    strategic::object(current, patch, strategic::Shape::Struct(of)).map(Value::Object)
}
