//! Who owns which field: `metadata.managedFields` for writes that are not server-side apply.

use serde_json::Value;

use crate::apply::{self, TypeInfo, Writer};
use crate::dispatch::Call;
use crate::kinds::Kind;
use crate::object::{at, blank};

/// Runs with the merge rules of a kind.
pub(crate) fn with_types<R>(kind: &Kind, run: impl FnOnce(TypeInfo<'_>) -> R) -> R {
    let types = if kind.builtin.is_some() {
        TypeInfo::builtin(&kind.group, &kind.version, &kind.kind).unwrap_or_else(TypeInfo::untyped)
    } else {
        kind.schema.as_ref().map_or_else(TypeInfo::untyped, |schema| TypeInfo::custom(schema))
    };
    run(types.with_status_subresource(kind.has_status))
}

/// Puts the owners right before an object is stored.
///
/// Writes of our own controllers are noted only where a client keeps books already (the object has owners) and more than the status
/// changed: nobody applies a status, and computing field sets on every heartbeat would cost more than storing it.
pub(crate) fn track(call: &Call<'_>, old: Option<&Value>, new: &mut Value) {
    if call.in_process() {
        let kept = old.is_some_and(|old| !blank(at(old, &["metadata", "managedFields"])));
        if !kept || call.place.subresource == "status" {
            return;
        }
    }
    let now = call.core.now();
    let subresource = if call.through.is_empty() { call.place.subresource.as_str() } else { call.through };
    let writer = Writer { manager: call.manager(), subresource, now: &now };
    with_types(&call.kind, |types| apply::track_update(old, new, writer, types));
}
