//! Who owns which field: `metadata.managedFields` for writes that are not server-side apply.

use serde_json::Value;

use crate::apply::{self, TypeInfo, Writer};
use crate::context::RequestContext;
use crate::kinds::Kind;
use crate::object::{at, blank};

/// Runs with the merge rules of a kind.
pub(crate) fn with_types<R>(kind: &Kind, run: impl FnOnce(TypeInfo<'_>) -> R) -> R {
    let types = if kind.builtin.is_some() {
        TypeInfo::builtin(&kind.group, &kind.version, &kind.kind).unwrap_or_else(TypeInfo::untyped)
    } else {
        kind.schema
            .as_ref()
            .map_or_else(TypeInfo::untyped, |schema| TypeInfo::custom(schema))
    };
    run(types.with_status_subresource(kind.has_status))
}

/// Puts the owners right before an object is stored.
///
/// Writes of our own controllers are noted only where a client keeps books already (the object has owners) and more than the status
/// changed: nobody applies a status, and computing field sets on every heartbeat would cost more than storing it.
pub(crate) fn track(context: &RequestContext<'_>, old: Option<&Value>, new: &mut Value) {
    if context.in_process() {
        let kept = old.is_some_and(|old| !blank(at(old, &["metadata", "managedFields"])));
        if !kept || context.info.subresource == "status" {
            return;
        }
    }
    let now = context.server.now();
    let subresource = if context.through.is_empty() {
        context.info.subresource.as_str()
    } else {
        context.through
    };
    let writer = Writer {
        manager: context.manager(),
        subresource,
        now: &now,
    };
    with_types(&context.kind, |types| {
        apply::track_update(old, new, writer, types)
    });
}

/// A write that changed only the times in the books changed nothing: an apply whose list comes without its defaults meets them
/// again in admission, and must not wake everybody who watches.
pub(crate) fn only_times_differ(old: &Value, new: &Value) -> bool {
    equal_but(old, new, "metadata", |old, new| {
        equal_but(old, new, "managedFields", |old, new| {
            match (old.as_array(), new.as_array()) {
                (Some(old), Some(new)) => {
                    old.len() == new.len()
                        && old
                            .iter()
                            .zip(new)
                            .all(|(old, new)| equal_but(old, new, "time", |_, _| true))
                }
                _ => old == new,
            }
        })
    })
}

/// Equal maps, save that `compare` judges one field.
fn equal_but(
    old: &Value,
    new: &Value,
    field: &str,
    compare: impl Fn(&Value, &Value) -> bool,
) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let fits = |(key, value): (&String, &Value)| {
        new.get(key).is_some_and(|other| {
            if key == field {
                compare(value, other)
            } else {
                value == other
            }
        })
    };
    old.len() == new.len() && old.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: &str, manager: &str, data: i32| json!({"metadata": {"name": "x", "managedFields": [{"manager": manager, "time": time}]}, "data": data});
        let old = object("1", "kinglet", 1);
        assert!(only_times_differ(&old, &object("2", "kinglet", 1)));
        assert!(!only_times_differ(&old, &object("2", "kubectl", 1)));
        assert!(!only_times_differ(&old, &object("2", "kinglet", 2)));
        assert!(!only_times_differ(
            &old,
            &json!({"metadata": {"name": "x"}, "data": 1})
        ));
    }
}
