//! Subresources of Pods: log, binding, eviction.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Response;
use serde_json::{Value, json};

use super::current;
use crate::body::{ApiResponse, Body, json as answer_json, streaming};
use crate::builtin::disruption;
use crate::commit;
use crate::context::RequestContext;
use crate::decode;
use crate::logs;
use crate::object::{self, child, fields, text};
use crate::remove;
use crate::status::Status;

pub(super) async fn log(context: &RequestContext<'_>) -> Result<ApiResponse, Status> {
    let (_, pod) = current(context).await?;
    let options = logs::options(&pod, &context.query)?;
    let Some(handler) = context.server.options.logs.clone() else {
        return Err(Status::not_implemented(
            "container logs are not available here",
        ));
    };
    if text(&pod, &["spec", "nodeName"]).is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            context.info.name
        )));
    }
    let stream = handler
        .logs(&context.info.namespace, &context.info.name, options)
        .await?;
    // A log that fails half-way just ends, since its answer has begun.
    let bytes = stream
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .map(Result::unwrap_or_default);
    let bytes = bytes.take_until(context.server.closing.clone().cancelled_owned());
    let mut response = Response::new(Body::stream(bytes));
    streaming(&mut response, "text/plain");
    Ok(response)
}

pub(super) async fn binding(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    let node = text(&body, &["target", "name"]).to_owned();
    if node.is_empty() {
        return Err(Status::new(500, "", "target.name: Required value"));
    }
    let (entry, old) = current(context).await?;
    let name = context.info.name.clone();
    if object::is_deleting(&old) {
        return Err(Status::conflict(
            "",
            "pods/binding",
            &name,
            &format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    let bound = text(&old, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return Err(Status::conflict(
            "",
            "pods/binding",
            &name,
            &format!("pod {name} is already assigned to node \"{bound}\""),
        ));
    }
    let uid = text(&body, &["metadata", "uid"]);
    if !uid.is_empty() && uid != object::uid(&old) {
        let detail = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(&old)
        );
        return Err(Status::conflict("", "pods/binding", &name, &detail));
    }
    let mut new = old.clone();
    child(fields(&mut new), "spec").insert("nodeName".to_owned(), node.into());
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": context.server.now()});
    set_condition(&mut new, condition);
    commit::put_raw(context, &entry, &old, &new).await?;
    Ok(answer_json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

pub(super) async fn eviction(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    // Two evictions at once must not both pass the same budget.
    let server = context.server;
    let _turn = server.turn.lock().await;
    let (entry, pod) = current(context).await?;
    if let Some(budget) = disruption::blocking(server, &pod)? {
        let mut status = Status::too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            10,
        );
        status.details.remove("retryAfterSeconds");
        status.details.insert(
            "causes".to_owned(),
            json!([{"reason": "DisruptionBudget", "message": format!("The disruption budget {budget}")}]),
        );
        return Err(status);
    }
    if !context.dry_run() && !object::is_deleting(&pod) {
        let mut marked = pod.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": context.server.now(),
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        });
        set_condition(&mut marked, condition);
        commit::put_raw(context, &entry, &pod, &marked).await?;
    }
    let sent = body
        .get("deleteOptions")
        .cloned()
        .unwrap_or_else(|| json!({}));
    context.body = Bytes::from(sent.to_string());
    context.content_type = String::new();
    let options = remove::delete_options(context)?;
    let name = context.info.name.clone();
    let subresource = std::mem::take(&mut context.info.subresource);
    let result = remove::delete_one(context, &name, &options).await;
    context.info.subresource = subresource;
    result?;
    Ok(answer_json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// Puts a condition in the place of the one of its type.
fn set_condition(pod: &mut Value, condition: Value) {
    let status = child(fields(pod), "status");
    let mut conditions: Vec<Value> = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    conditions.retain(|other| other["type"] != condition["type"]);
    conditions.push(condition);
    status.insert("conditions".to_owned(), conditions.into());
}
