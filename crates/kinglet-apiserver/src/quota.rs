//! ResourceQuota: may this namespace have one more of something?

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::builtin::quantity::{self, Quantity};
use crate::context::RequestContext;
use crate::kinds::{Builtin, Kind};
use crate::object::{self, at, items, text};
use crate::registry::Registry;
use crate::state::ServerState;
use crate::status::{Status, qualified};

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

/// What an object takes of the quotas of its namespace: `count/secrets`, `secrets`, for a pod `requests.cpu` and so on.
fn usage(kind: &Kind, object: &Value) -> BTreeMap<String, Quantity> {
    let one = Quantity::from_units(1);
    let mut total = BTreeMap::from([(
        format!("count/{}", qualified(&kind.group, &kind.plural)),
        one,
    )]);
    let mut add = |key: String, quantity: Quantity| {
        let sum = total.get(&key).map_or(quantity, |old| old.plus(quantity));
        total.insert(key, sum);
    };
    if kind.group.is_empty()
        && matches!(
            kind.builtin,
            Some(
                Builtin::Pod
                    | Builtin::Service
                    | Builtin::Secret
                    | Builtin::ConfigMap
                    | Builtin::ResourceQuota
            )
        )
    {
        add(kind.plural.clone(), one);
    }
    match (kind.builtin, text(object, &["spec", "type"])) {
        (Some(Builtin::Service), "LoadBalancer") => {
            add("services.loadbalancers".to_owned(), one);
            for _ in items(object, &["spec", "ports"]) {
                add("services.nodeports".to_owned(), one);
            }
        }
        (Some(Builtin::Service), "NodePort") => {
            for _ in items(object, &["spec", "ports"]) {
                add("services.nodeports".to_owned(), one);
            }
        }
        (Some(Builtin::Pod), _) => pod_usage(object, &mut add),
        _ => {}
    }
    total
}

fn pod_usage(pod: &Value, add: &mut impl FnMut(String, Quantity)) {
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
                add(format!("{side}.{name}"), quantity);
                if side == "requests"
                    && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                {
                    add(name.clone(), quantity);
                }
            }
        }
    }
}

/// The kind that a name in a quota counts; what names resources of pods counts pods.
fn counted(registry: &Registry, key: &str) -> Option<Arc<Kind>> {
    let (resource, group) = match key.strip_prefix("count/") {
        Some(name) => name.split_once('.').unwrap_or((name, "")),
        None => match key {
            "services" | "services.loadbalancers" | "services.nodeports" => ("services", ""),
            "secrets" | "configmaps" | "resourcequotas" => (key, ""),
            _ => ("pods", ""),
        },
    };
    registry
        .all()
        .find(|kind| kind.plural == resource && kind.group == group)
        .cloned()
}

/// How much of a name the objects of a namespace take.
fn taken(server: &ServerState, namespace: &str, key: &str) -> Quantity {
    let none = Quantity::from_units(0);
    let Some(kind) = counted(&server.registry.load(), key) else {
        return none;
    };
    let page = server.store.list(&kind.range(namespace), None, 0, None);
    page.map(|page| page.entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice::<Value>(&entry.value).ok())
        // A pod that has ended takes nothing any more.
        .filter(|object| {
            !(kind.is(Builtin::Pod)
                && matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed"))
        })
        .filter_map(|object| usage(&kind, &object).get(key).copied())
        .fold(none, Quantity::plus)
}

/// Refuses an object that some quota of its namespace has no room for.
pub(crate) fn check(context: &RequestContext<'_>, object: &Value) -> Result<(), Status> {
    let quotas = quotas(context.server, &context.info.namespace);
    if quotas.is_empty() {
        return Ok(());
    }
    let is_pod = context.kind.is(Builtin::Pod);
    let wanted = usage(&context.kind, object);
    let name = match object::name(object) {
        "" => text(object, &["metadata", "generateName"]),
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
            let Some(more) = wanted.get(key) else {
                if is_pod
                    && (key.starts_with("requests.")
                        || key.starts_with("limits.")
                        || matches!(key.as_str(), "cpu" | "memory"))
                {
                    missing.push(key.clone());
                }
                continue;
            };
            let now = taken(context.server, &context.info.namespace, key);
            if now.plus(*more) > bound {
                requested.push(format!("{key}={}", more));
                used.push(format!("{key}={}", now));
                limited.push(format!("{key}={}", bound));
            }
        }
        let quota_name = object::name(&quota);
        let detail = if !missing.is_empty() {
            let names: Vec<&str> = items(object, &["spec", "containers"])
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
        return Err(Status::forbidden(
            &context.kind.group,
            &context.kind.plural,
            name,
            &detail,
        ));
    }
    Ok(())
}

/// The status of a quota as it stands, for a quota that is created or changed.
pub(crate) fn status(server: &ServerState, quota: &Value) -> Value {
    let namespace = object::namespace(quota);
    let hard = at(quota, &["spec", "hard"])
        .cloned()
        .unwrap_or_else(|| json!({}));
    let used: Map<String, Value> = hard
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| {
            (
                key.clone(),
                taken(server, namespace, key).to_string().into(),
            )
        })
        .collect();
    json!({"hard": hard, "used": used})
}

/// Brings the status of a namespace's quotas up to date after an object came or went.
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
        // Another write in between counts by itself; the figure is only shown, the limit is checked against the objects.
        let _ = server.store.put(
            &key,
            kinglet_store::Expect::Revision(revision),
            kinglet_store::Durability::Trailing,
            |revision| template.stamp(revision),
        );
    }
}
