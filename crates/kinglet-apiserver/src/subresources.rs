//! Subresources other than the status: scale, log, binding, eviction, token, finalize.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Response;
use kinglet_store::Entry;
use serde_json::{Map, Value, json};

use crate::auth::signer::AUDIENCE;
use crate::body::{ApiResponse, Body, json as answer_json, streaming};
use crate::builtin::disruption;
use crate::commit;
use crate::context::RequestContext;
use crate::decode;
use crate::kinds::{Builtin, Scale};
use crate::logs;
use crate::object::{self, at, child, fields, number, selector_text, text};
use crate::patching;
use crate::present;
use crate::remove;
use crate::status::{Cause, Status};
use crate::streams;
use crate::write;

pub(crate) async fn answer(
    context: &mut RequestContext<'_>,
    verb: &str,
) -> Result<ApiResponse, Status> {
    let sub = context.info.subresource.clone();
    match (context.kind.builtin, sub.as_str(), verb) {
        (_, "scale", "get" | "update" | "patch") if context.kind.scale.is_some() => {
            scale(context, verb).await
        }
        (Some(Builtin::Pod), "log", "get") => log(context).await,
        (Some(Builtin::Pod), "exec" | "attach", "get" | "create") => {
            streams::session(context).await
        }
        (Some(Builtin::Pod), "portforward", "get" | "create") => {
            streams::port_forward(context).await
        }
        (Some(Builtin::Pod), "binding", "create") => binding(context).await,
        (Some(Builtin::Pod), "eviction", "create") => eviction(context).await,
        (Some(Builtin::ServiceAccount), "token", "create") => token(context),
        (Some(Builtin::Namespace), "finalize", "update") => finalize(context).await,
        (_, "scale", _) if context.kind.scale.is_some() => Err(Status::method_not_allowed()),
        (
            Some(Builtin::Pod),
            "log" | "binding" | "eviction" | "exec" | "attach" | "portforward",
            _,
        )
        | (Some(Builtin::Namespace), "finalize", _) => Err(Status::method_not_allowed()),
        _ => Err(Status::no_such_path()),
    }
}

fn current(context: &RequestContext<'_>) -> Result<(Entry, Value), Status> {
    let name = &context.info.name;
    let entry = context
        .server
        .store
        .get(&context.kind.key(&context.info.namespace, name))
        .ok_or_else(|| context.not_found(name))?;
    let object = present::object(&context.kind, &entry.value);
    Ok((entry, object))
}

// --- scale -----------------------------------------------------------------------------------------------------------

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

async fn scale(context: &mut RequestContext<'_>, verb: &str) -> Result<ApiResponse, Status> {
    let scale = context
        .kind
        .scale
        .clone()
        .ok_or_else(Status::no_such_path)?;
    // A patch without a version is applied again if another write came in between.
    for last in [false, false, false, true] {
        let (entry, old) = current(context)?;
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
                let object = present::object(&context.kind, &stored);
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

// --- pods ------------------------------------------------------------------------------------------------------------

async fn log(context: &RequestContext<'_>) -> Result<ApiResponse, Status> {
    let (_, pod) = current(context)?;
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

async fn binding(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    let node = text(&body, &["target", "name"]).to_owned();
    if node.is_empty() {
        return Err(Status::new(500, "", "target.name: Required value"));
    }
    let (entry, old) = current(context)?;
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
    let now = context.server.now();
    let status = child(fields(&mut new), "status");
    let mut conditions: Vec<Value> = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    conditions.retain(|condition| text(condition, &["type"]) != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    status.insert("conditions".to_owned(), conditions.into());
    commit::put_raw(context, &entry, &old, &new).await?;
    Ok(answer_json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

async fn eviction(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    // Two evictions at once must not both pass the same budget.
    let server = context.server;
    let _turn = server.turn.lock().await;
    let (entry, pod) = current(context)?;
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
        let status = child(fields(&mut marked), "status");
        let mut conditions: Vec<Value> = status
            .get("conditions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        conditions.retain(|condition| text(condition, &["type"]) != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": context.server.now(),
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }));
        status.insert("conditions".to_owned(), conditions.into());
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

// --- the rest --------------------------------------------------------------------------------------------------------

/// Life of a token in seconds: without a request, and the least and most that a request may ask for.
const TOKEN_SECONDS: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

fn token(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let mut request = decode::value(context)?;
    let (_, account) = current(context)?;
    let Some(signer) = context.server.options.signer.clone() else {
        return Err(Status::not_implemented(
            "this server has no key to sign service-account tokens with",
        ));
    };
    let seconds = token_seconds(context, &request)?;
    let audiences = match object::items(&request, &["spec", "audiences"]) {
        [] => json!([AUDIENCE]),
        given => Value::Array(given.to_vec()),
    };
    let now = context.server.options.clock.now();
    let (namespace, name) = (context.info.namespace.clone(), context.info.name.clone());
    let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(&account)}});
    bind_token(context, &request["spec"]["boundObjectRef"], &mut bound)?;
    let claims = json!({
        "iss": AUDIENCE, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"), "jti": context.server.uuid(),
        "iat": now.as_second(), "nbf": now.as_second(), "exp": now.as_second() + seconds, "kubernetes.io": bound,
    });
    let signed = signer.sign(&claims).map_err(Status::internal)?;
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    let root = fields(&mut request);
    root.insert("kind".to_owned(), "TokenRequest".into());
    root.insert("apiVersion".to_owned(), "authentication.k8s.io/v1".into());
    let spec = child(root, "spec");
    spec.insert("audiences".to_owned(), audiences);
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    spec.entry("boundObjectRef").or_insert(Value::Null);
    root.insert(
        "status".to_owned(),
        json!({"token": signed, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}),
    );
    let metadata = child(root, "metadata");
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("namespace".to_owned(), namespace.into());
    metadata.insert("uid".to_owned(), context.server.uuid().into());
    metadata.insert("creationTimestamp".to_owned(), context.server.now().into());
    Ok(answer_json(201, &request))
}

/// Validates a token request and returns its seconds.
fn token_seconds(context: &RequestContext<'_>, request: &Value) -> Result<i64, Status> {
    let invalid = |cause, name: &str| {
        Status::invalid("authentication.k8s.io", "TokenRequest", name, &[cause])
    };
    let account = &context.info.name;
    let name = object::name(request);
    if !name.is_empty() && name != account {
        let detail = "must match the service account name if specified";
        let cause = Cause::invalid("metadata.name", &name.into(), detail);
        return Err(invalid(cause, account));
    }
    let seconds = number(request, &["spec", "expirationSeconds"]).unwrap_or(TOKEN_SECONDS);
    let detail = match seconds {
        ..TOKEN_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), detail);
    Err(invalid(cause, ""))
}

/// Binds a token to the Pod or Secret it is asked for.
fn bind_token(
    context: &RequestContext<'_>,
    reference: &Value,
    bound: &mut Value,
) -> Result<(), Status> {
    let (kind, name) = (text(reference, &["kind"]), text(reference, &["name"]));
    let (plural, claim) = match kind {
        "" => return Ok(()),
        "Pod" => ("pods", "pod"),
        "Secret" => ("secrets", "secret"),
        other => {
            let version = text(reference, &["apiVersion"]);
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={other}"
            )));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let entry = context
        .server
        .store
        .get(&format!("core/{plural}/{}/{name}", context.info.namespace))
        .ok_or_else(|| Status::not_found("", plural, name))?;
    let found: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let uid = text(reference, &["uid"]);
    if !uid.is_empty() && uid != object::uid(&found) {
        let detail = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &detail));
    }
    bound[claim] = json!({"name": name, "uid": object::uid(&found)});
    Ok(())
}

async fn finalize(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    let (entry, old) = current(context)?;
    let version = text(&body, &["metadata", "resourceVersion"]);
    if !version.is_empty() && version != entry.modified.to_string() {
        return Err(Status::modified("", "namespaces", &context.info.name));
    }
    let mut new = old.clone();
    let finalizers = at(&body, &["spec", "finalizers"]).cloned();
    let spec = child(fields(&mut new), "spec");
    match finalizers.filter(|list| !object::blank(Some(list))) {
        Some(list) => spec.insert("finalizers".to_owned(), list),
        None => spec.remove("finalizers"),
    };
    let done = object::is_deleting(&old)
        && object::items(&new, &["spec", "finalizers"]).is_empty()
        && object::finalizers(&old).is_empty();
    let stored = if done {
        commit::erase(context, &entry, &new).await?
    } else {
        commit::put_raw(context, &entry, &old, &new).await?
    };
    Ok(decode::answer(context, 200, &stored))
}
