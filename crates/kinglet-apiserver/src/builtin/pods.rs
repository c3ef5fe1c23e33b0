//! Pods on their way in: service account, tolerations, priority, quality of service.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::quantity::{self, Quantity};
use crate::context::RequestContext;
use crate::object::{self, at, child, fields, items, text};
use crate::status::Status;

const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a pod waits for the default account of a namespace that was made a moment ago; Kubernetes waits about as long.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

fn account_name(pod: &Value) -> &str {
    match text(pod, &["spec", "serviceAccountName"]) {
        "" => match text(pod, &["spec", "serviceAccount"]) {
            "" => "default",
            name => name,
        },
        name => name,
    }
}

/// Waits a moment for the account of a pod to appear.
pub(crate) async fn await_account(context: &RequestContext<'_>, pod: &Value) {
    let key = format!(
        "core/serviceaccounts/{}/{}",
        context.info.namespace,
        account_name(pod)
    );
    if context.server.store.get(&key).is_some() {
        return;
    }
    let Ok(mut watch) = context
        .server
        .store
        .watch(&key, context.server.store.revision())
    else {
        return;
    };
    if context.server.store.get(&key).is_none() {
        // Whether it came or not is looked at again by admission.
        let _ = tokio::time::timeout(ACCOUNT_WAIT, watch.next()).await;
    }
}

pub(crate) fn on_create(context: &RequestContext<'_>, pod: &mut Value) -> Result<(), Status> {
    let account = account_name(pod).to_owned();
    let namespace = context.info.namespace.clone();
    let shown = match object::name(pod) {
        "" => text(pod, &["metadata", "generateName"]),
        name => name,
    }
    .to_owned();
    let Some(entry) = context
        .server
        .store
        .get(&format!("core/serviceaccounts/{namespace}/{account}"))
    else {
        let detail = format!(
            "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(Status::forbidden("", "pods", &shown, &detail));
    };
    let account_object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let mounts = at(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| account_object.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let secrets = account_object.get("imagePullSecrets").cloned();
    let spec = child(fields(pod), "spec");
    spec.insert("serviceAccountName".to_owned(), account.clone().into());
    spec.insert("serviceAccount".to_owned(), account.into());
    if let Some(secrets) = secrets.filter(|list| !object::blank(Some(list)))
        && object::blank(spec.get("imagePullSecrets"))
    {
        spec.insert("imagePullSecrets".to_owned(), secrets);
    }
    if mounts {
        mount_token(spec, &context.server.suffix());
    }
    tolerate(spec);
    prioritize(context, spec, &shown)?;
    super::limits::apply(context, pod, &shown)?;
    let class = quality(pod);
    fields(pod).insert(
        "status".to_owned(),
        json!({"phase": "Pending", "qosClass": class}),
    );
    Ok(())
}

/// Gives every container that has nothing at the well-known place a token there.
fn mount_token(spec: &mut Map<String, Value>, suffix: &str) {
    let existing = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|volume| text(volume, &["name"]))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let mounts = fields(container)
                .entry("volumeMounts")
                .or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if !mounts
                .iter()
                .any(|mount| text(mount, &["mountPath"]) == TOKEN_FOLDER)
            {
                mounts.push(json!({"mountPath": TOKEN_FOLDER, "name": name, "readOnly": true}));
                needed = true;
            }
        }
    }
    if needed && existing.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
            ]}}));
        }
    }
}

/// Five minutes on a node that is lost, unless the pod says otherwise.
fn tolerate(spec: &mut Map<String, Value>) {
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let said = list.iter().any(|toleration| {
            let (own, effect) = (text(toleration, &["key"]), text(toleration, &["effect"]));
            (own == key || own.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if !said {
            list.push(json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}));
        }
    }
}

fn prioritize(
    context: &RequestContext<'_>,
    spec: &mut Map<String, Value>,
    pod: &str,
) -> Result<(), Status> {
    let class = spec
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let class = if class.is_empty() {
        default_class(context)
    } else {
        class
    };
    if !class.is_empty() {
        spec.insert("priorityClassName".to_owned(), class.clone().into());
    }
    let (mut value, mut policy) = (json!(0), json!("PreemptLowerPriority"));
    if !class.is_empty() {
        let known = match class.as_str() {
            "system-cluster-critical" => Some((json!(2_000_000_000), None)),
            "system-node-critical" => Some((json!(2_000_001_000), None)),
            _ => context
                .server
                .store
                .get(&format!("scheduling.k8s.io/priorityclasses/{class}"))
                .map(|entry| {
                    let found: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                    (
                        found["value"].clone(),
                        found.get("preemptionPolicy").cloned(),
                    )
                }),
        };
        let Some((number, own)) = known else {
            return Err(Status::forbidden(
                "",
                "pods",
                pod,
                &format!("no PriorityClass with name {class} was found"),
            ));
        };
        value = number;
        policy = own.unwrap_or(policy);
    }
    spec.insert("priority".to_owned(), value);
    object::default(spec, "preemptionPolicy", policy);
    Ok(())
}

/// The class that pods without one have, if there is such a class.
fn default_class(context: &RequestContext<'_>) -> String {
    let page = context
        .server
        .store
        .list("scheduling.k8s.io/priorityclasses/", None, 0, None);
    page.map(|page| page.entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice::<Value>(&entry.value).ok())
        .find(|class| class["globalDefault"] == true)
        .map(|class| object::name(&class).to_owned())
        .unwrap_or_default()
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn quality(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(pod, &["spec", list]))
    {
        for name in ["cpu", "memory"] {
            let get = |side: &str| {
                at(container, &["resources", side, name])
                    .and_then(quantity::of)
                    .filter(|quantity| *quantity != Quantity::from_units(0))
            };
            let (request, limit) = (get("requests"), get("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
