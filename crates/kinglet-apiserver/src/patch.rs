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
    /// The patch asks for more than a patch may (413 `RequestEntityTooLarge`).
    #[error("{0}")]
    TooLarge(String),
    /// Strategic merge patch of a kind that has no merge keys (415 `UnsupportedMediaType`).
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )]
    Unsupported,
}

/// Bytes that all `copy` operations of a JSON patch may add; the real server's bound.
const COPIED_BYTES_MAX: usize = 3 << 20;
/// Operations in one JSON patch; the real server's bound.
const OPERATIONS_MAX: usize = 10_000;

/// RFC 6902. On error the target is as it was.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}"
        )));
    }
    let parsed: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut changed = target.clone();
    let mut copied = 0;
    let mut depth = DepthBound::new(&changed);
    // One by one, since each copy may double what the next one copies.
    for operation in parsed.0 {
        if let json_patch::PatchOperation::Copy(copy) = &operation {
            copied += copy.from.resolve(&changed).map_or(0, size);
            if copied > COPIED_BYTES_MAX {
                return Err(PatchError::TooLarge(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPIED_BYTES_MAX}"
                )));
            }
        }
        depth.admit(&changed, &operation)?;
        let Some(operation) = as_kubernetes_reads_it(operation, &changed) else {
            continue;
        };
        json_patch::patch(&mut changed, std::slice::from_ref(&operation)).map_err(|error| {
            PatchError::DoesNotFit(format!(
                "the server rejected our request due to an error in our request: {error}"
            ))
        })?;
    }
    *target = changed;
    Ok(())
}

/// Kubernetes' own patcher takes a key that an object does not have for one with nothing in it, against RFC 6902: it can be
/// replaced, copied, and tested to be null. `None`: there is nothing left to do.
fn as_kubernetes_reads_it(
    operation: json_patch::PatchOperation,
    object: &Value,
) -> Option<json_patch::PatchOperation> {
    use json_patch::PatchOperation::{Add, Copy, Replace, Test};
    let is_missing_key = |path: &json_patch::jsonptr::Pointer| {
        let above = path.parent().and_then(|parent| parent.resolve(object).ok());
        above.is_some_and(Value::is_object) && path.resolve(object).is_err()
    };
    match operation {
        Replace(replace) if is_missing_key(&replace.path) => Some(Add(json_patch::AddOperation {
            path: replace.path,
            value: replace.value,
        })),
        Copy(copy) if is_missing_key(&copy.from) => Some(Add(json_patch::AddOperation {
            path: copy.path,
            value: Value::Null,
        })),
        Test(test) if test.value.is_null() && is_missing_key(&test.path) => None,
        other => Some(other),
    }
}

/// Nesting of what a patch may make; what is deeper could not be read again, and walks over it would overflow.
const DEPTH_MAX: usize = 120;
/// How often the exact depth of an object is measured in one patch; a patch that needs it more often builds a tower.
const MEASURED_MAX: usize = 50;

/// An upper bound of how deep an object is while operations move its parts about.
struct DepthBound {
    bound: usize,
    measured: usize,
}

impl DepthBound {
    fn new(object: &Value) -> Self {
        Self {
            bound: depth(object),
            measured: 0,
        }
    }

    /// Counts an operation in before it is made.
    fn admit(
        &mut self,
        object: &Value,
        operation: &json_patch::PatchOperation,
    ) -> Result<(), PatchError> {
        use json_patch::PatchOperation::{Add, Copy, Move, Remove, Replace, Test};
        let deepest = |bound: usize| match operation {
            Add(add) => add.path.tokens().count() + depth(&add.value),
            Replace(replace) => replace.path.tokens().count() + depth(&replace.value),
            Move(moved) => {
                moved.path.tokens().count() + bound.saturating_sub(moved.from.tokens().count())
            }
            Copy(copy) => {
                copy.path.tokens().count() + bound.saturating_sub(copy.from.tokens().count())
            }
            Remove(_) | Test(_) => 0,
        };
        let mut after = self.bound.max(deepest(self.bound));
        if after > DEPTH_MAX {
            self.measured += 1;
            let exact = depth(object);
            after = exact.max(deepest(exact));
            if after > DEPTH_MAX || self.measured > MEASURED_MAX {
                return Err(PatchError::TooLarge(format!(
                    "the patch nests the object deeper than {DEPTH_MAX}"
                )));
            }
        }
        self.bound = after;
        Ok(())
    }
}

/// How deep a value is; called for what was read with a bound, or is within [`DEPTH_MAX`].
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// About as many bytes as a value has as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
                + 2
        }
    }
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
