//! What the server itself does to objects of built-in kinds on their way in.
//!
//! Order of a write: shape and defaults (`rules`) -> **here** (what Kubernetes' own admission plugins do) -> injected admission -> rules.

pub(crate) mod defaults;
pub(crate) mod disruption;
pub(crate) mod event;
pub(crate) mod limits;
pub(crate) mod pods;
pub(crate) mod quantity;
pub(crate) mod retention;
pub(crate) mod service;
mod token_secret;

use serde_json::{Value, json};

use crate::auth::aggregation;
use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, child, fields};
use crate::quota;
use crate::status::Status;

/// What is stored although nothing acts on it yet is said to be so.
fn caution(context: &mut RequestContext<'_>, object: &Value) {
    if context.in_process() {
        return;
    }
    let kind = object::text(object, &["spec", "type"]);
    if context.kind.is(Builtin::Service) && kind == "LoadBalancer" {
        context.warnings.push(
            "spec.type: there is no load balancer here; the Service has a ClusterIP and node ports"
                .to_owned(),
        );
    }
}

/// Completes a new object.
pub(crate) fn on_create(
    context: &mut RequestContext<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    caution(context, object);
    match context.kind.builtin {
        Some(Builtin::Namespace) => {
            child(fields(object), "spec").insert("finalizers".to_owned(), json!(["kubernetes"]));
            child(fields(object), "status").insert("phase".to_owned(), "Active".into());
        }
        Some(Builtin::Pod) => pods::on_create(context, object)?,
        Some(Builtin::Service) => {
            service::families(object);
            child(fields(object), "status").insert("loadBalancer".to_owned(), json!({}));
        }
        Some(Builtin::Job) => {
            fields(object).insert("status".to_owned(), json!({}));
        }
        Some(Builtin::Deployment | Builtin::ReplicaSet) => {
            let status = if context.kind.is(Builtin::ReplicaSet) {
                json!({"replicas": 0})
            } else {
                json!({})
            };
            fields(object).insert("status".to_owned(), status);
        }
        Some(Builtin::ResourceQuota) => {
            let status = quota::status(context.server, object);
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
    context: &mut RequestContext<'_>,
    object: &mut Value,
    old: &Value,
) -> Result<(), Status> {
    match context.kind.builtin {
        Some(Builtin::Namespace) if context.info.subresource.is_empty() => {
            // Only `/finalize` may change these.
            match object::at(old, &["spec", "finalizers"]) {
                Some(list) => {
                    child(fields(object), "spec").insert("finalizers".to_owned(), list.clone())
                }
                None => child(fields(object), "spec").remove("finalizers"),
            };
        }
        Some(Builtin::Service) if context.info.subresource.is_empty() => {
            service::on_update(context, object, old)
        }
        Some(Builtin::ResourceQuota) if context.info.subresource.is_empty() => {
            let status = quota::status(context.server, object);
            fields(object).insert("status".to_owned(), status);
        }
        _ => {}
    }
    Ok(())
}

/// Completes a new object that has its name.
pub(crate) fn named(context: &RequestContext<'_>, object: &mut Value) {
    if context.kind.is(Builtin::Job) {
        crate::rules::job::generate(object);
        crate::rules::job::label(object);
    }
}

/// Takes what is scarce, just before the object is stored.
pub(crate) fn claim(context: &RequestContext<'_>, object: &mut Value) -> Result<(), Status> {
    match context.kind.builtin {
        Some(Builtin::Service) => service::claim(context, object),
        Some(Builtin::Secret) => token_secret::complete(context, object),
        _ => Ok(()),
    }
}

/// Gives it back if storing did not work.
pub(crate) fn unclaim(context: &RequestContext<'_>, object: &Value) {
    if context.kind.is(Builtin::Service) && !context.dry_run() {
        service::release(context.server, object);
    }
}

/// What follows from a stored change.
pub(crate) fn after(context: &RequestContext<'_>, old: Option<&Value>, new: Option<&Value>) {
    let (server, namespace) = (context.server, &context.info.namespace);
    match (context.kind.builtin, old, new) {
        (Some(Builtin::Service), Some(old), new) => service::moved(server, old, new),
        (Some(Builtin::ClusterRole), _, _) => aggregation::refresh(server),
        (Some(Builtin::Event), _, Some(event)) => retention::bound(server, event),
        (Some(Builtin::Pod | Builtin::PodDisruptionBudget), _, _) => {
            disruption::recount(server, namespace);
        }
        _ => {}
    }
    // A pod that ends counts no more; of everything else, that it is there.
    let is_counted = old.is_none() || new.is_none() || context.kind.is(Builtin::Pod);
    if is_counted && context.kind.namespaced && !context.kind.is(Builtin::Event) {
        quota::recount(server, namespace);
    }
}
