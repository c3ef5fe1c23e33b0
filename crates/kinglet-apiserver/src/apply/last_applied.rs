//! The annotation in which kubectl's client-side apply keeps what it applied.

use serde_json::Value;

use super::path::Set;
use super::types::TypeInfo;
use super::{api_version, walk};

pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns the fields that kubectl's client-side apply set and nobody changed since.
pub(super) fn last_applied_fields(live: &Value, version: &str, types: TypeInfo<'_>) -> Option<Set> {
    let text = live
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?
        .as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if api_version(&last) != version {
        return None;
    }
    let changed = walk::difference(&last, live, types.shape());
    let fields = walk::fields_of(&last, types.shape());
    Some(
        fields
            .difference(&changed.modified)
            .difference(&changed.added)
            .difference(&changed.removed),
    )
}

/// Writes the applied object into kubectl's annotation, if there is one, so that a user may return to client-side apply.
pub(super) fn refresh_last_applied(result: &mut Value, applied: &Value) {
    let Some(annotations) = result
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    if annotations
        .get(LAST_APPLIED)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut bare = applied.clone();
    if let Some(own) = bare
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    {
        own.remove(LAST_APPLIED);
    }
    // kubectl and the server end the text with a line feed.
    annotations.insert(LAST_APPLIED.to_owned(), format!("{bare}\n").into());
}
