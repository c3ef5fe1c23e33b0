//! What the server itself does to objects of built-in kinds on their way in.
//!
//! Order of a write: shape and defaults (`rules`) -> **here** (what Kubernetes' own admission plugins do) -> injected admission -> rules.

pub(crate) mod defaults;
pub(crate) mod event;
pub(crate) mod limits;
pub(crate) mod pods;
pub(crate) mod quantity;
pub(crate) mod service;

use serde_json::{Value, json};

use crate::dispatch::Call;
use crate::kinds::Builtin;
use crate::object::{self, child, fields};
use crate::quota;
use crate::status::Status;

/// What is stored although nothing acts on it yet is said to be so.
fn caution(call: &mut Call<'_>, object: &Value) {
    if call.in_process() {
        return;
    }
    match (call.kind.builtin, object::text(object, &["spec", "type"])) {
        (Some(Builtin::HorizontalPodAutoscaler), _) => {
            call.warnings.push(
                "HorizontalPodAutoscalers are stored, but Kinglet does not scale by them yet"
                    .to_owned(),
            );
        }
        (Some(Builtin::Service), kind @ ("NodePort" | "LoadBalancer")) => {
            call.warnings.push(format!(
                "spec.type: {kind} is stored, but Kinglet opens no port on the host for it yet"
            ));
        }
        _ => {}
    }
}

/// Completes a new object.
pub(crate) fn on_create(call: &mut Call<'_>, object: &mut Value) -> Result<(), Status> {
    caution(call, object);
    match call.kind.builtin {
        Some(Builtin::Namespace) => {
            child(fields(object), "spec").insert("finalizers".to_owned(), json!(["kubernetes"]));
            child(fields(object), "status").insert("phase".to_owned(), "Active".into());
        }
        Some(Builtin::Pod) => pods::on_create(call, object)?,
        Some(Builtin::Service) => {
            service::families(object);
            child(fields(object), "status").insert("loadBalancer".to_owned(), json!({}));
        }
        Some(Builtin::Deployment | Builtin::ReplicaSet) => {
            let status = if call.kind.is(Builtin::ReplicaSet) {
                json!({"replicas": 0})
            } else {
                json!({})
            };
            fields(object).insert("status".to_owned(), status);
        }
        Some(Builtin::ResourceQuota) => {
            let status = quota::status(call.core, object);
            fields(object).insert("status".to_owned(), status);
        }
        Some(Builtin::PodDisruptionBudget) => {
            let status = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
            fields(object).insert("status".to_owned(), status);
        }
        _ => {}
    }
    Ok(())
}

/// Completes a changed object.
pub(crate) fn on_update(
    call: &mut Call<'_>,
    object: &mut Value,
    old: &Value,
) -> Result<(), Status> {
    match call.kind.builtin {
        Some(Builtin::Namespace) if call.place.subresource.is_empty() => {
            // Only `/finalize` may change these.
            match object::at(old, &["spec", "finalizers"]) {
                Some(list) => {
                    child(fields(object), "spec").insert("finalizers".to_owned(), list.clone())
                }
                None => child(fields(object), "spec").remove("finalizers"),
            };
        }
        Some(Builtin::Service) if call.place.subresource.is_empty() => {
            service::on_update(call, object, old)
        }
        Some(Builtin::ResourceQuota) if call.place.subresource.is_empty() => {
            let status = quota::status(call.core, object);
            fields(object).insert("status".to_owned(), status);
        }
        _ => {}
    }
    Ok(())
}

/// Takes what is scarce, just before the object is stored.
pub(crate) fn claim(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    if call.kind.is(Builtin::Service) {
        service::claim(call, object)
    } else {
        Ok(())
    }
}

/// Gives it back if storing did not work.
pub(crate) fn unclaim(call: &Call<'_>, object: &Value) {
    if call.kind.is(Builtin::Service) && !call.dry_run() {
        service::release(call.core, object);
    }
}

/// What follows from a stored change.
pub(crate) fn after(call: &Call<'_>, old: Option<&Value>, new: Option<&Value>) {
    match (call.kind.builtin, old, new) {
        (Some(Builtin::Service), Some(old), new) => service::moved(call.core, old, new),
        (Some(Builtin::Pod), _, _) => quota::recount(call.core, &call.place.namespace),
        _ => {}
    }
}
