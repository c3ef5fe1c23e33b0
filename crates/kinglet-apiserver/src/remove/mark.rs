//! The mark of an object that is being deleted: its time, its grace period, its finalizers.

use serde_json::{Value, json};

use super::DeleteOptions;
use crate::context::RequestContext;
use crate::crd;
use crate::kinds::Builtin;
use crate::object::{self, meta, number, text};
use kinglet_quantity::pod::TERMINATION_GRACE_SECONDS;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Marks an object for deletion. Returns whether it has to wait for finalizers or its grace period.
pub(super) fn mark(
    context: &RequestContext<'_>,
    new: &mut Value,
    old: &Value,
    options: &DeleteOptions,
) -> bool {
    let grace = grace(context, old, options);
    let finalizers = finalizers(old, options);
    let deleting = object::is_deleting(old);
    let metadata = meta(new);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let holds = context.kind.is(Builtin::Namespace)
        && !object::items(old, &["spec", "finalizers"]).is_empty();
    if finalizers.is_empty() && grace == 0 && !holds {
        return false;
    }
    let had = number(old, &["metadata", "deletionGracePeriodSeconds"]);
    if deleting && had.is_some_and(|had| had <= grace) {
        return true;
    }
    let metadata = meta(new);
    if !deleting
        && let Some(generation) =
            number(old, &["metadata", "generation"]).filter(|generation| *generation > 0)
    {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    let now = context.server.options.clock.now();
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or(now);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    );
    if !context.kind.is(Builtin::Namespace) {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    }
    if context.kind.is(Builtin::Namespace) {
        object::child(object::fields(new), "status")
            .insert("phase".to_owned(), "Terminating".into());
    }
    if context.kind.is(Builtin::CustomResourceDefinition) {
        crd::mark_terminating(new, &context.server.now());
    }
    true
}

/// Returns the grace period. Only pods that are bound and have not ended have one.
fn grace(context: &RequestContext<'_>, old: &Value, options: &DeleteOptions) -> i64 {
    if !context.kind.is(Builtin::Pod) {
        return 0;
    }
    if text(old, &["spec", "nodeName"]).is_empty()
        || matches!(text(old, &["status", "phase"]), "Succeeded" | "Failed")
    {
        return 0;
    }
    let grace = options
        .grace_seconds
        .or_else(|| number(old, &["spec", "terminationGracePeriodSeconds"]))
        .unwrap_or(TERMINATION_GRACE_SECONDS);
    // Kubernetes treats a negative period as one second.
    if grace < 0 { 1 } else { grace }
}

/// Returns the finalizers that the propagation policy leaves or adds.
fn finalizers(old: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut finalizers = object::finalizers(old);
    let Some(policy) = options.propagation.as_deref() else {
        return finalizers;
    };
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    finalizers
        .retain(|name| (name != ORPHAN && name != FOREGROUND) || Some(name.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|name| name == wanted)
    {
        finalizers.push(wanted.to_owned());
    }
    finalizers
}
