//! A changed object in the place of the old one: what may not change, defaults, admission, rules, the store.

use bytes::Bytes;
use kinglet_store::Entry;
use serde_json::Value;

use crate::admission::Operation;
use crate::auth::escalation;
use crate::builtin;
use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, at, blank, carry, meta, text};
use crate::status::{Cause, Status};
use crate::{admit, commit, conversion, crd, ownership, patching, pod_security, rules};

/// Puts a changed object in the place of the old one.
pub(crate) async fn replace(
    context: &mut RequestContext<'_>,
    entry: &Entry,
    old: &Value,
    mut object: Value,
    patch: Option<&patching::Patch>,
) -> Result<Bytes, Status> {
    let (group, plural, name) = (
        context.kind.group.clone(),
        context.kind.plural.clone(),
        object::name(old).to_owned(),
    );
    let asked = text(&object, &["metadata", "resourceVersion"]).to_owned();
    if !asked.is_empty() && asked != entry.modified.to_string() {
        return Err(Status::modified(&group, &plural, &name));
    }
    let (given, uid) = (text(&object, &["metadata", "uid"]), object::uid(old));
    if !given.is_empty() && given != uid {
        return Err(Status::conflict(
            &group,
            &plural,
            &name,
            &format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
            ),
        ));
    }
    prepare_update(context, &mut object, old);
    if context.info.subresource.is_empty() || context.kind.builtin.is_none() {
        rules::shape(context, &mut object, Some(old))
            .map_err(|status| patch.map_or(status.clone(), |_| as_invalid(context, status)))?;
    }
    restrict(context, &mut object, old);
    if patch.is_none_or(|patch| !patch.tracks()) {
        ownership::track(context, Some(old), &mut object).await?;
    }
    builtin::on_update(context, &mut object, old)?;
    admit::admit(context, Operation::Update, &mut object, Some(old), true)?;
    if context.kind.is(Builtin::CustomResourceDefinition) && context.info.subresource.is_empty() {
        crd::establish(context.server, &mut object, Some(old));
    }
    count_generation(context, &mut object, old);
    let mut causes = rules::validate_all(context, &object, Some(old));
    check_finalizers(&object, old, &mut causes);
    if !causes.is_empty() {
        return Err(Status::invalid(&group, &context.kind.kind, &name, &causes));
    }
    escalation::review(context, &object, Some(old))?;
    if context.info.subresource.is_empty() && object.get("spec") != old.get("spec") {
        pod_security::review(context, &object)?;
    }
    if context.kind.is(Builtin::Namespace) {
        pod_security::review_namespace(context, &object, old);
    }
    admit::admit(context, Operation::Update, &mut object, Some(old), false)?;
    object::set_revision(&mut object, entry.modified);
    // An object that is stored in a former storage version is written in the present one, though nothing else changes.
    if ownership::only_times_differ(old, &object)
        && conversion::is_stored_form(&context.kind, &entry.value)
    {
        return Ok(entry.value.clone());
    }
    if finished_deleting(context, &object) {
        return commit::erase(context, entry, &object).await;
    }
    let stored = commit::store(context, &object, Some((entry, old))).await?;
    commit::after(context, Some(old), Some(&object));
    Ok(stored)
}

/// A patch whose result has the wrong types is an invalid object, not a malformed request.
fn as_invalid(context: &RequestContext<'_>, status: Status) -> Status {
    match status.message.split_once(": json: ") {
        Some((_, detail)) if status.code == 400 => {
            let cause = Cause {
                field: "patch".to_owned(),
                reason: "FieldValueInvalid",
                message: format!("Invalid value: json: {detail}"),
            };
            Status::invalid(
                &context.kind.group,
                &context.kind.kind,
                &context.info.name,
                &[cause],
            )
        }
        _ => status,
    }
}

/// What an update may not touch.
fn prepare_update(context: &RequestContext<'_>, object: &mut Value, old: &Value) {
    let old_meta = old.get("metadata").cloned().unwrap_or_default();
    let metadata = meta(object);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        carry(&old_meta, metadata, key);
    }
    metadata.remove("selfLink");
    if metadata.get("managedFields").is_none() {
        carry(&old_meta, metadata, "managedFields");
    }
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if metadata.get(key).is_some_and(|value| blank(Some(value))) {
            metadata.remove(key);
        }
    }
    if context.kind.is(Builtin::Pod)
        || metadata
            .get("generateName")
            .is_some_and(|value| blank(Some(value)))
    {
        carry(&old_meta, metadata, "generateName");
    }
}

/// `/status` changes only the status, everything else only the rest.
fn restrict(context: &RequestContext<'_>, object: &mut Value, old: &Value) {
    if context.info.subresource == "status" {
        let mut result = old.clone();
        carry(object, object::fields(&mut result), "status");
        let new_meta = object.get("metadata").cloned().unwrap_or_default();
        let metadata = meta(&mut result);
        carry(&new_meta, metadata, "managedFields");
        if matches!(context.kind.builtin, Some(Builtin::Node | Builtin::Pod)) {
            carry(&new_meta, metadata, "labels");
            carry(&new_meta, metadata, "annotations");
        }
        *object = result;
    } else if context.kind.has_status {
        carry(old, object::fields(object), "status");
    }
}

/// A changed wish counts up the generation.
fn count_generation(context: &RequestContext<'_>, object: &mut Value, old: &Value) {
    if !context.kind.generations || context.info.subresource == "status" {
        return;
    }
    let changed = if context.kind.builtin.is_some() && !context.kind.is(Builtin::EndpointSlice) {
        object.get("spec") != old.get("spec")
    } else {
        let rest = |value: &Value| -> Vec<(String, Value)> {
            let skip_status = context.kind.has_status;
            value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| {
                    !(matches!(key.as_str(), "metadata" | "apiVersion" | "kind")
                        || skip_status && *key == "status")
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let labels = |value: &Value| at(value, &["metadata", "labels"]).cloned();
        rest(object) != rest(old)
            || (context.kind.is(Builtin::EndpointSlice) && labels(object) != labels(old))
    };
    if changed {
        let generation = object::number(old, &["metadata", "generation"]).unwrap_or(0) + 1;
        meta(object).insert("generation".to_owned(), generation.into());
    }
}

fn check_finalizers(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if !object::is_deleting(old) {
        return;
    }
    let before = object::finalizers(old);
    let fresh: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|f| format!("\"{f}\""))
        .collect();
    if !fresh.is_empty() {
        causes.push(Cause::forbidden(
            "metadata.finalizers",
            &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            ),
        ));
    }
}

/// Was this update the last thing a deletion waited for?
fn finished_deleting(context: &RequestContext<'_>, object: &Value) -> bool {
    object::is_deleting(object)
        && object::finalizers(object).is_empty()
        && object::number(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (!context.kind.is(Builtin::Namespace)
            || object::items(object, &["spec", "finalizers"]).is_empty())
}
