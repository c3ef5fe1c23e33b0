//! `scale`: the replicas of a workload as an object of their own.

use serde_json::{Map, Value, json};

use super::current;
use crate::body::{ApiResponse, json as answer_json};
use crate::context::RequestContext;
use crate::conversion;
use crate::decode;
use crate::kinds::Scale;
use crate::object::{at, child, fields, number, selector_text, text};
use crate::patching;
use crate::status::{Cause, Status};
use crate::write;

fn scale_of(context: &RequestContext<'_>, scale: &Scale, object: &Value) -> Value {
    let path = |path: &[String]| {
        path.iter()
            .try_fold(object, |value, key| value.get(key.as_str()))
    };
    let mut metadata = Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = at(object, &["metadata", key]) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = path(&scale.spec_path).and_then(Value::as_i64) {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = Map::new();
    status.insert(
        "replicas".to_owned(),
        path(&scale.status_path)
            .and_then(Value::as_i64)
            .unwrap_or(0)
            .into(),
    );
    let selector = match &scale.selector_path {
        Some(selector) => path(selector).and_then(Value::as_str).map(str::to_owned),
        None if context.kind.builtin.is_some() => Some(selector_text(&object["spec"]["selector"])),
        None => None,
    };
    if let Some(selector) = selector {
        status.insert("selector".to_owned(), selector.into());
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

pub(super) async fn scale(
    context: &mut RequestContext<'_>,
    verb: &str,
) -> Result<ApiResponse, Status> {
    let scale = context
        .kind
        .scale
        .clone()
        .ok_or_else(Status::no_such_path)?;
    // A patch without a version is applied again if another write came in between.
    for last in [false, false, false, true] {
        let (entry, old) = current(context).await?;
        let now = scale_of(context, &scale, &old);
        if verb == "get" {
            return Ok(answer_json(200, &now));
        }
        let wanted = wanted_scale(context, verb, &now)?;
        let version = text(&wanted, &["metadata", "resourceVersion"]);
        if !version.is_empty() && version != entry.modified.to_string() {
            return Err(Status::modified(
                &context.kind.group,
                &context.kind.plural,
                &context.info.name,
            ));
        }
        let replicas = wanted_replicas(context, &wanted)?;
        let mut new = old.clone();
        set_replicas(&mut new, &scale, replicas)?;
        let explicit =
            !version.is_empty() && version != text(&now, &["metadata", "resourceVersion"]);
        // The parent is written as a whole object, so that its own rules and generation apply.
        let subresource = std::mem::take(&mut context.info.subresource);
        context.through = "scale";
        let result = write::replace(context, &entry, &old, new, None).await;
        context.info.subresource = subresource;
        match result {
            Err(status) if status.reason == "Conflict" && !explicit && !last => {}
            Err(status) => return Err(status),
            Ok(stored) => {
                let object = conversion::object(context.server, &context.kind, &stored).await?;
                return Ok(answer_json(200, &scale_of(context, &scale, &object)));
            }
        }
    }
    Err(Status::modified(
        &context.kind.group,
        &context.kind.plural,
        &context.info.name,
    ))
}

/// Reads the scale that the client asks for, as a whole or as a patch of the present one.
fn wanted_scale(
    context: &mut RequestContext<'_>,
    verb: &str,
    now: &Value,
) -> Result<Value, Status> {
    if verb != "patch" {
        return decode::value(context);
    }
    let mut wanted = now.clone();
    match patching::read(context)? {
        patching::Patch::Json(patch) => crate::patch::json(&mut wanted, &patch)
            .map_err(|error| Status::bad_request(error.to_string()))?,
        patching::Patch::Merge(patch)
        | patching::Patch::Strategic(patch)
        | patching::Patch::Apply { object: patch, .. } => crate::patch::merge(&mut wanted, &patch),
    }
    Ok(wanted)
}

fn wanted_replicas(context: &RequestContext<'_>, wanted: &Value) -> Result<i64, Status> {
    let replicas = number(wanted, &["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let cause = Cause::invalid(
            "spec.replicas",
            &replicas.into(),
            "must be greater than or equal to 0",
        );
        return Err(Status::invalid(
            "autoscaling",
            "Scale",
            &context.info.name,
            &[cause],
        ));
    }
    Ok(replicas)
}

/// Writes the replicas where the kind has them.
fn set_replicas(object: &mut Value, scale: &Scale, replicas: i64) -> Result<(), Status> {
    let (leaf, parents) = scale
        .spec_path
        .split_last()
        .ok_or_else(|| Status::internal("the scale path is empty"))?;
    let parent = parents
        .iter()
        .fold(fields(object), |at, key| child(at, key));
    parent.insert(leaf.clone(), replicas.into());
    Ok(())
}
