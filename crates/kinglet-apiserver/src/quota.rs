//! ResourceQuota: may this namespace have one more pod?

use serde_json::{Map, Value, json};

use crate::builtin::quantity::{self, Quantity};
use crate::context::RequestContext;
use crate::object::{self, at, items, text};
use crate::state::ServerState;
use crate::status::Status;

fn quotas(server: &ServerState, namespace: &str) -> Vec<Value> {
    let page = server
        .store
        .list(&format!("core/resourcequotas/{namespace}/"), None, 0, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// Has the namespace any quota?
pub(crate) fn applies(server: &ServerState, namespace: &str) -> bool {
    server
        .store
        .count(&format!("core/resourcequotas/{namespace}/"))
        > 0
}

/// What a pod takes: `pods`, `requests.cpu` and so on.
fn usage(pod: &Value) -> Vec<(String, Quantity)> {
    let mut total: std::collections::BTreeMap<String, Quantity> = std::collections::BTreeMap::new();
    total.insert("pods".to_owned(), Quantity::from_units(1));
    total.insert("count/pods".to_owned(), Quantity::from_units(1));
    for container in items(pod, &["spec", "containers"]) {
        for side in ["requests", "limits"] {
            for (name, value) in at(container, &["resources", side])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let Some(quantity) = quantity::of(value) else {
                    continue;
                };
                let mut add = |key: String| {
                    let sum = total.get(&key).map_or(quantity, |old| old.plus(quantity));
                    total.insert(key, sum);
                };
                add(format!("{side}.{name}"));
                if side == "requests"
                    && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                {
                    add(name.clone());
                }
            }
        }
    }
    total.into_iter().collect()
}

/// Pods that still count.
fn living(server: &ServerState, namespace: &str) -> Vec<Value> {
    let page = server
        .store
        .list(&format!("core/pods/{namespace}/"), None, 0, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice::<Value>(&entry.value).ok())
        .filter(|pod| !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed"))
        .collect()
}

fn sum(all: &[Value], key: &str) -> Quantity {
    all.iter()
        .flat_map(usage)
        .filter(|(name, _)| name == key)
        .fold(Quantity::from_units(0), |total, (_, quantity)| {
            total.plus(quantity)
        })
}

/// Refuses a pod that no quota of its namespace has room for.
pub(crate) fn check(context: &RequestContext<'_>, pod: &Value) -> Result<(), Status> {
    let quotas = quotas(context.server, &context.info.namespace);
    if quotas.is_empty() {
        return Ok(());
    }
    let all = living(context.server, &context.info.namespace);
    let wanted = usage(pod);
    let name = match object::name(pod) {
        "" => text(pod, &["metadata", "generateName"]),
        name => name,
    };
    for quota in quotas {
        let hard = at(&quota, &["spec", "hard"]).and_then(Value::as_object);
        let (mut requested, mut used, mut limited, mut missing) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, limit) in hard.into_iter().flatten() {
            let Some(bound) = quantity::of(limit) else {
                continue;
            };
            let Some((_, more)) = wanted.iter().find(|(name, _)| name == key) else {
                if key.starts_with("requests.")
                    || key.starts_with("limits.")
                    || matches!(key.as_str(), "cpu" | "memory")
                {
                    missing.push(key.clone());
                }
                continue;
            };
            let now = sum(&all, key);
            if now.plus(*more) > bound {
                requested.push(format!("{key}={}", more));
                used.push(format!("{key}={}", now));
                limited.push(format!("{key}={}", bound));
            }
        }
        let quota_name = object::name(&quota);
        let detail = if !missing.is_empty() {
            let names: Vec<&str> = items(pod, &["spec", "containers"])
                .iter()
                .map(|c| text(c, &["name"]))
                .collect();
            let each: Vec<String> = missing
                .iter()
                .map(|key| format!("{key} for: {}", names.join(",")))
                .collect();
            format!(
                "failed quota: {quota_name}: must specify {}",
                each.join("; ")
            )
        } else if !requested.is_empty() {
            format!(
                "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
                requested.join(","),
                used.join(","),
                limited.join(",")
            )
        } else {
            continue;
        };
        return Err(Status::forbidden("", "pods", name, &detail));
    }
    Ok(())
}

/// The status of a quota as it stands, for a quota that is created or changed.
pub(crate) fn status(server: &ServerState, quota: &Value) -> Value {
    let all = living(server, object::namespace(quota));
    let hard = at(quota, &["spec", "hard"])
        .cloned()
        .unwrap_or_else(|| json!({}));
    let used: Map<String, Value> = hard
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| (key.clone(), sum(&all, key).to_string().into()))
        .collect();
    json!({"hard": hard, "used": used})
}

/// Brings the status of a namespace's quotas up to date after a pod came or went.
pub(crate) fn recount(server: &ServerState, namespace: &str) {
    if !applies(server, namespace) {
        return;
    }
    for quota in quotas(server, namespace) {
        let fresh = status(server, &quota);
        if quota.get("status") == Some(&fresh) {
            continue;
        }
        let key = format!("core/resourcequotas/{namespace}/{}", object::name(&quota));
        let revision = text(&quota, &["metadata", "resourceVersion"])
            .parse()
            .unwrap_or(0);
        let mut quota = quota;
        object::fields(&mut quota).insert("status".to_owned(), fresh);
        let template = object::Template::new(&quota);
        // Another write in between counts by itself; the figure is only shown, the limit is checked against the pods.
        let _ = server.store.put(
            &key,
            kinglet_store::Expect::Revision(revision),
            kinglet_store::Durability::Trailing,
            |revision| template.stamp(revision),
        );
    }
}
