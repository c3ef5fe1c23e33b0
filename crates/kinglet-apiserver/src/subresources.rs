//! What hangs below an object besides its status: scale, log, binding, eviction, token, finalize.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Response;
use kinglet_store::Entry;
use serde_json::{Map, Value, json};

use crate::auth::tokens::AUDIENCE;
use crate::body::{Answer, Body, json as answer_json};
use crate::decode;
use crate::dispatch::{Call, streaming};
use crate::kinds::{Builtin, Scale};
use crate::logs;
use crate::object::{self, at, child, fields, number, text};
use crate::patching;
use crate::present;
use crate::remove;
use crate::status::{Cause, Status};
use crate::write;

pub(crate) async fn answer(call: &mut Call<'_>, verb: &str) -> Result<Answer, Status> {
    let sub = call.place.subresource.clone();
    match (call.kind.builtin, sub.as_str(), verb) {
        (_, "scale", "get" | "update" | "patch") if call.kind.scale.is_some() => {
            scale(call, verb).await
        }
        (Some(Builtin::Pod), "log", "get") => log(call).await,
        (Some(Builtin::Pod), "binding", "create") => binding(call).await,
        (Some(Builtin::Pod), "eviction", "create") => eviction(call).await,
        (Some(Builtin::ServiceAccount), "token", "create") => token(call),
        (Some(Builtin::Namespace), "finalize", "update") => finalize(call).await,
        (_, "scale", _) if call.kind.scale.is_some() => Err(Status::method_not_allowed()),
        (Some(Builtin::Pod), "log" | "binding" | "eviction", _)
        | (Some(Builtin::Namespace), "finalize", _) => Err(Status::method_not_allowed()),
        _ => Err(Status::no_such_path()),
    }
}

fn current(call: &Call<'_>) -> Result<(Entry, Value), Status> {
    let name = &call.place.name;
    let entry = call
        .core
        .store
        .get(&call.kind.key(&call.place.namespace, name))
        .ok_or_else(|| call.not_found(name))?;
    let object = present::object(&call.kind, &entry.value);
    Ok((entry, object))
}

// --- scale -----------------------------------------------------------------------------------------------------------

fn scale_of(call: &Call<'_>, scale: &Scale, object: &Value) -> Value {
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
        None if call.kind.builtin.is_some() => Some(selector_text(&object["spec"]["selector"])),
        None => None,
    };
    if let Some(selector) = selector {
        status.insert("selector".to_owned(), selector.into());
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A label selector object in the one-line form.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    for each in object::items(selector, &["matchExpressions"]) {
        let key = text(each, &["key"]);
        let values: Vec<&str> = object::items(each, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match text(each, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.join(",")
}

async fn scale(call: &mut Call<'_>, verb: &str) -> Result<Answer, Status> {
    let scale = call.kind.scale.clone().ok_or_else(Status::no_such_path)?;
    // A patch without a version takes what is there when another write comes in between.
    for last in [false, false, false, true] {
        let (entry, old) = current(call)?;
        let now = scale_of(call, &scale, &old);
        if verb == "get" {
            return Ok(answer_json(200, &now));
        }
        let wanted = if verb == "patch" {
            let patch = patching::read(call)?;
            match patch {
                patching::Patch::Json(patch) => {
                    let mut wanted = now.clone();
                    crate::patch::json(&mut wanted, &patch)
                        .map_err(|error| Status::bad_request(error.to_string()))?;
                    wanted
                }
                patching::Patch::Merge(patch)
                | patching::Patch::Strategic(patch)
                | patching::Patch::Apply { object: patch, .. } => {
                    let mut wanted = now.clone();
                    crate::patch::merge(&mut wanted, &patch);
                    wanted
                }
            }
        } else {
            decode::value(call)?
        };
        let version = text(&wanted, &["metadata", "resourceVersion"]);
        if !version.is_empty() && version != entry.modified.to_string() {
            return Err(Status::modified(
                &call.kind.group,
                &call.kind.plural,
                &call.place.name,
            ));
        }
        let replicas = number(&wanted, &["spec", "replicas"]).unwrap_or(0);
        if replicas < 0 {
            let cause = Cause::invalid(
                "spec.replicas",
                &replicas.into(),
                "must be greater than or equal to 0",
            );
            return Err(Status::invalid(
                "autoscaling",
                "Scale",
                &call.place.name,
                &[cause],
            ));
        }
        let mut new = old.clone();
        let (leaf, parents) = scale
            .spec_path
            .split_last()
            .ok_or_else(|| Status::internal("the scale path is empty"))?;
        let parent = parents
            .iter()
            .fold(fields(&mut new), |at, key| child(at, key));
        parent.insert(leaf.clone(), replicas.into());
        let explicit =
            !version.is_empty() && version != text(&now, &["metadata", "resourceVersion"]);
        // The parent is written as a whole object, so that its own rules and generation apply.
        let sub = std::mem::take(&mut call.place.subresource);
        call.through = "scale";
        let result = write::replace(call, &entry, &old, new, None).await;
        call.place.subresource = sub;
        match result {
            Err(status) if status.reason == "Conflict" && !explicit && !last => {}
            Err(status) => return Err(status),
            Ok(stored) => {
                let object = present::object(&call.kind, &stored);
                return Ok(answer_json(200, &scale_of(call, &scale, &object)));
            }
        }
    }
    Err(Status::modified(
        &call.kind.group,
        &call.kind.plural,
        &call.place.name,
    ))
}

// --- pods ------------------------------------------------------------------------------------------------------------

async fn log(call: &Call<'_>) -> Result<Answer, Status> {
    let (_, pod) = current(call)?;
    let options = logs::options(&pod, &call.query)?;
    let Some(handler) = call.core.options.logs.clone() else {
        return Err(Status::not_implemented(
            "container logs are not available here",
        ));
    };
    if text(&pod, &["spec", "nodeName"]).is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.place.name
        )));
    }
    let stream = handler
        .logs(&call.place.namespace, &call.place.name, options)
        .await?;
    // A log that breaks off ends; there is no place left to say why.
    let bytes = stream
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .map(Result::unwrap_or_default);
    let bytes = bytes.take_until(call.core.closing.clone().cancelled_owned());
    let mut response = Response::new(Body::stream(bytes));
    streaming(&mut response, "text/plain");
    Ok(response)
}

async fn binding(call: &mut Call<'_>) -> Result<Answer, Status> {
    let body = decode::value(call)?;
    let node = text(&body, &["target", "name"]).to_owned();
    if node.is_empty() {
        return Err(Status::new(500, "", "target.name: Required value"));
    }
    let (entry, old) = current(call)?;
    let name = call.place.name.clone();
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
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(&old)
        );
        return Err(Status::conflict("", "pods/binding", &name, &why));
    }
    let mut new = old.clone();
    child(fields(&mut new), "spec").insert("nodeName".to_owned(), node.into());
    let now = call.core.now();
    let status = child(fields(&mut new), "status");
    let mut conditions: Vec<Value> = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    conditions.retain(|condition| text(condition, &["type"]) != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    status.insert("conditions".to_owned(), conditions.into());
    write::put_raw(call, &entry, &old, &new).await?;
    Ok(answer_json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

async fn eviction(call: &mut Call<'_>) -> Result<Answer, Status> {
    let body = decode::value(call)?;
    let (entry, pod) = current(call)?;
    if let Some(budget) = blocking_budget(call, &pod) {
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
    if !call.dry_run() && !object::is_deleting(&pod) {
        let mut marked = pod.clone();
        let status = child(fields(&mut marked), "status");
        let mut conditions: Vec<Value> = status
            .get("conditions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        conditions.retain(|condition| text(condition, &["type"]) != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": call.core.now(),
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }));
        status.insert("conditions".to_owned(), conditions.into());
        write::put_raw(call, &entry, &pod, &marked).await?;
    }
    let options = body
        .get("deleteOptions")
        .cloned()
        .unwrap_or_else(|| json!({}));
    call.body = Bytes::from(options.to_string());
    call.content_type = String::new();
    let wish = remove::wish(call)?;
    let name = call.place.name.clone();
    let sub = std::mem::take(&mut call.place.subresource);
    let result = remove::delete_one(call, &name, &wish).await;
    call.place.subresource = sub;
    result?;
    Ok(answer_json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// A disruption budget that selects the pod and allows none to go. It is counted here, when it matters: no controller keeps its status.
fn blocking_budget(call: &Call<'_>, pod: &Value) -> Option<String> {
    let parsed = |prefix: &str| -> Vec<Value> {
        let page =
            call.core
                .store
                .list(&format!("{prefix}{}/", call.place.namespace), None, 0, None);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        entries
            .iter()
            .filter_map(|(_, entry)| serde_json::from_slice(&entry.value).ok())
            .collect()
    };
    let is_ready = |pod: &Value| {
        !object::is_deleting(pod)
            && object::items(pod, &["status", "conditions"])
                .iter()
                .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True")
    };
    let budgets = parsed("policy/poddisruptionbudgets/");
    if budgets.is_empty() || !is_ready(pod) {
        return None;
    }
    let pods = parsed("core/pods/");
    budgets.iter().find_map(|budget| {
        let spec = &budget["spec"];
        if !object::matches_labels(&spec["selector"], pod) {
            return None;
        }
        let selected: Vec<&Value> = pods
            .iter()
            .filter(|pod| object::matches_labels(&spec["selector"], pod))
            .collect();
        let expected = i64::try_from(selected.len()).unwrap_or(i64::MAX);
        let healthy =
            i64::try_from(selected.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(i64::MAX);
        // Percentages round up, in favour of staying.
        let count = |value: &Value| match value {
            Value::String(percent) => percent
                .trim_end_matches('%')
                .parse::<i64>()
                .ok()
                .map(|percent| (expected * percent + 99) / 100),
            value => value.as_i64(),
        };
        let desired = match (
            spec.get("minAvailable").and_then(count),
            spec.get("maxUnavailable").and_then(count),
        ) {
            (Some(least), _) => least,
            (None, Some(most)) => expected - most,
            (None, None) => 0,
        };
        (healthy <= desired).then(|| {
            format!(
                "{} needs {desired} healthy pods and has {healthy} currently",
                object::name(budget)
            )
        })
    })
}

// --- the rest --------------------------------------------------------------------------------------------------------

/// Seconds a token lives unless asked otherwise, and the least that can be asked.
const TOKEN_SECONDS: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

fn token(call: &mut Call<'_>) -> Result<Answer, Status> {
    let mut request = decode::value(call)?;
    let (_, account) = current(call)?;
    let Some(signer) = call.core.options.signer.clone() else {
        return Err(Status::not_implemented(
            "this server has no key to sign service-account tokens with",
        ));
    };
    let seconds = number(&request, &["spec", "expirationSeconds"]).unwrap_or(TOKEN_SECONDS);
    if !(TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX).contains(&seconds) {
        let why = if seconds < TOKEN_SECONDS_MIN {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
        return Err(Status::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[cause],
        ));
    }
    let audiences = match object::items(&request, &["spec", "audiences"]) {
        [] => json!([AUDIENCE]),
        given => Value::Array(given.to_vec()),
    };
    let now = call.core.options.clock.now();
    let (namespace, name) = (call.place.namespace.clone(), call.place.name.clone());
    let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(&account)}});
    let reference = &request["spec"]["boundObjectRef"];
    if text(reference, &["kind"]) == "Pod" {
        let pod = text(reference, &["name"]);
        let entry = call
            .core
            .store
            .get(&format!("core/pods/{namespace}/{pod}"))
            .ok_or_else(|| Status::not_found("", "pods", pod))?;
        let found: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let uid = text(reference, &["uid"]);
        if !uid.is_empty() && uid != object::uid(&found) {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict("", "Pod", pod, &why));
        }
        bound["pod"] = json!({"name": pod, "uid": object::uid(&found)});
    }
    let claims = json!({
        "iss": AUDIENCE, "aud": audiences, "sub": format!("system:serviceaccount:{namespace}:{name}"), "jti": call.core.uuid(),
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
    metadata.insert("uid".to_owned(), call.core.uuid().into());
    metadata.insert("creationTimestamp".to_owned(), call.core.now().into());
    Ok(answer_json(201, &request))
}

async fn finalize(call: &mut Call<'_>) -> Result<Answer, Status> {
    let body = decode::value(call)?;
    let (entry, old) = current(call)?;
    let version = text(&body, &["metadata", "resourceVersion"]);
    if !version.is_empty() && version != entry.modified.to_string() {
        return Err(Status::modified("", "namespaces", &call.place.name));
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
        remove::erase(call, &entry, &new).await?
    } else {
        write::put_raw(call, &entry, &old, &new).await?
    };
    Ok(decode::answer(call, 200, &stored))
}
