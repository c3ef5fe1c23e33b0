//! Who owns which field: `metadata.managedFields` for writes that are not server-side apply.

use parking_lot::Mutex;
use serde_json::Value;

use crate::apply::{self, ApplyError, TypeInfo, Unconverted, Versions, Writer};
use crate::context::RequestContext;
use crate::conversion::Conversion;
use crate::object::{at, blank};
use crate::status::Status;

/// Conversions by a webhook that one merge may ask for: each version of the largest definitions, before and after.
const CONVERSIONS_MAX: usize = 64;

/// The versions of a custom kind, with what its webhook has converted so far.
#[derive(Debug)]
struct KindVersions<'k> {
    conversion: &'k Conversion,
    ready: Vec<Converted>,
    /// What the last merge lacked.
    wanted: Mutex<Option<(Value, String)>>,
}

#[derive(Debug)]
struct Converted {
    object: Value,
    version: String,
    converted: Value,
}

impl Versions for KindVersions<'_> {
    fn types(&self, api_version: &str) -> Option<TypeInfo<'_>> {
        let version = self.conversion.versions.get(api_version)?;
        let types = version
            .schema
            .as_ref()
            .map_or_else(TypeInfo::untyped, |schema| TypeInfo::custom(schema));
        Some(types.with_status_subresource(version.has_status))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        if let Some(done) = self.conversion.at_once(object, api_version) {
            return done.map_err(|status| Unconverted(status.message));
        }
        let ready = self
            .ready
            .iter()
            .find(|ready| ready.version == api_version && ready.object == *object);
        if let Some(ready) = ready {
            return Ok(ready.converted.clone());
        }
        *self.wanted.lock() = Some((object.clone(), api_version.to_owned()));
        Err(Unconverted(format!(
            "a manager of {api_version} needs more than {CONVERSIONS_MAX} conversions"
        )))
    }
}

/// Runs with the merge rules of a kind; once more each time that a webhook has converted what the run lacked.
pub(crate) async fn with_types<R>(
    context: &RequestContext<'_>,
    mut run: impl FnMut(TypeInfo<'_>) -> Result<R, ApplyError>,
) -> Result<Result<R, ApplyError>, Status> {
    let kind = &context.kind;
    let types = if kind.builtin.is_some() {
        TypeInfo::builtin(&kind.group, &kind.version, &kind.kind).unwrap_or_else(TypeInfo::untyped)
    } else {
        kind.schema
            .as_ref()
            .map_or_else(TypeInfo::untyped, |schema| TypeInfo::custom(schema))
    }
    .with_status_subresource(kind.has_status);
    let Some(conversion) = &kind.conversion else {
        return Ok(run(types));
    };
    let mut versions = KindVersions {
        conversion,
        ready: Vec::new(),
        wanted: Mutex::new(None),
    };
    loop {
        let outcome = run(types.with_versions(&versions));
        let Some((object, version)) = versions.wanted.get_mut().take() else {
            return Ok(outcome);
        };
        if versions.ready.len() == CONVERSIONS_MAX {
            return Ok(outcome);
        }
        let converted = conversion
            .one(context.server, object.clone(), &version)
            .await?;
        versions.ready.push(Converted {
            object,
            version,
            converted,
        });
    }
}

/// Puts the owners right before an object is stored.
///
/// Writes of our own controllers are noted only where a client keeps books already (the object has owners) and more than the status
/// changed: nobody applies a status, and computing field sets on every heartbeat would cost more than storing it.
pub(crate) async fn track(
    context: &RequestContext<'_>,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Status> {
    if context.in_process() {
        let kept = old.is_some_and(|old| !blank(at(old, &["metadata", "managedFields"])));
        if !kept || context.info.subresource == "status" {
            return Ok(());
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
    let tracked = with_types(context, |types| {
        let mut tracked = new.clone();
        apply::track_update(old, &mut tracked, writer, types)?;
        Ok(tracked)
    });
    match tracked.await? {
        Ok(tracked) => {
            *new = tracked;
            Ok(())
        }
        Err(ApplyError::Unconverted(detail)) => Err(Status::new(500, "", detail)),
        Err(other) => Err(Status::internal(format!("{other:?}"))),
    }
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
