//! PodDisruptionBudgets: how many pods may go, in their status and when one is evicted.

use std::collections::BTreeMap;

use kinglet_store::{Durability, Expect};
use serde_json::{Value, json};

use crate::object::{self, items, number, text};
use crate::state::ServerState;
use crate::status::Status;

/// What a budget comes to with the pods that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    expected: i64,
    healthy: i64,
    desired: i64,
}

impl Count {
    fn allowed(self) -> i64 {
        if self.expected > 0 {
            (self.healthy - self.desired).max(0)
        } else {
            0
        }
    }
}

fn parsed(server: &ServerState, prefix: &str) -> Vec<Value> {
    let page = server.store.list(prefix, None, 0, None);
    page.map(|page| page.entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// Returns whether a budget counts the pod as healthy.
fn is_healthy(pod: &Value) -> bool {
    !object::is_deleting(pod) && object::is_ready(pod)
}

/// Counts the pods that a budget selects. `replicas` is what a ReplicaSet wants, by uid.
fn count(budget: &Value, pods: &[Value], replicas: &BTreeMap<String, i64>) -> Count {
    let spec = &budget["spec"];
    let selected: Vec<&Value> = pods
        .iter()
        .filter(|pod| object::matches_labels(&spec["selector"], pod))
        .filter(|pod| !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed"))
        .collect();
    let mut owners: BTreeMap<&str, i64> = BTreeMap::new();
    let mut expected = 0;
    for pod in &selected {
        let owner = items(pod, &["metadata", "ownerReferences"])
            .iter()
            .find(|owner| owner["controller"] == true)
            .map_or("", |owner| text(owner, &["uid"]));
        match replicas.get(owner) {
            Some(wanted) => {
                owners.insert(owner, *wanted);
            }
            None => expected += 1,
        }
    }
    expected += owners.values().sum::<i64>();
    let healthy = selected.iter().filter(|pod| is_healthy(pod)).count();
    // Percentages round up, in favour of staying.
    let amount = |value: &Value| match value {
        Value::String(percent) => percent
            .trim_end_matches('%')
            .parse::<i64>()
            .ok()
            .map(|percent| (expected.saturating_mul(percent).saturating_add(99)) / 100),
        value => value.as_i64(),
    };
    let desired = match (
        spec.get("minAvailable").and_then(amount),
        spec.get("maxUnavailable").and_then(amount),
    ) {
        (Some(least), _) => least,
        (None, Some(most)) => (expected - most).max(0),
        (None, None) => 0,
    };
    Count {
        expected,
        healthy: i64::try_from(healthy).unwrap_or(i64::MAX),
        desired,
    }
}

fn replicas(server: &ServerState, namespace: &str) -> BTreeMap<String, i64> {
    parsed(server, &format!("apps/replicasets/{namespace}/"))
        .iter()
        .map(|set| {
            let wanted = number(set, &["spec", "replicas"]).unwrap_or(1);
            (object::uid(set).to_owned(), wanted)
        })
        .collect()
}

/// The budget that keeps a pod from being evicted, in words.
pub(crate) fn blocking(server: &ServerState, pod: &Value) -> Result<Option<String>, Status> {
    let namespace = object::namespace(pod);
    let budgets: Vec<Value> = parsed(server, &format!("policy/poddisruptionbudgets/{namespace}/"))
        .into_iter()
        .filter(|budget| object::matches_labels(&budget["spec"]["selector"], pod))
        .collect();
    // What does not run yet, or no more, disrupts nothing by going.
    if budgets.is_empty()
        || object::is_deleting(pod)
        || matches!(
            text(pod, &["status", "phase"]),
            "Pending" | "Succeeded" | "Failed"
        )
    {
        return Ok(None);
    }
    let [budget] = budgets.as_slice() else {
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    };
    let pods = parsed(server, &format!("core/pods/{namespace}/"));
    let count = count(budget, &pods, &replicas(server, namespace));
    let free = if is_healthy(pod) {
        count.allowed() > 0
    } else {
        text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
            || count.healthy >= count.desired && count.desired > 0
            || count.allowed() > 0
    };
    Ok((!free).then(|| {
        format!(
            "{} needs {} healthy pods and has {} currently",
            object::name(budget),
            count.desired,
            count.healthy
        )
    }))
}

/// Brings the status of a namespace's budgets up to date.
pub(crate) fn recount(server: &ServerState, namespace: &str) {
    let prefix = format!("policy/poddisruptionbudgets/{namespace}/");
    if server.store.count(&prefix) == 0 {
        return;
    }
    let pods = parsed(server, &format!("core/pods/{namespace}/"));
    let replicas = replicas(server, namespace);
    for mut budget in parsed(server, &prefix) {
        let fresh = status(&budget, count(&budget, &pods, &replicas), &server.now());
        if budget.get("status") == Some(&fresh) {
            continue;
        }
        let revision = text(&budget, &["metadata", "resourceVersion"])
            .parse()
            .unwrap_or(0);
        let key = format!("{prefix}{}", object::name(&budget));
        object::fields(&mut budget).insert("status".to_owned(), fresh);
        let template = object::Template::new(&budget);
        // Another write in between counts by itself.
        let _ = server.store.put(
            &key,
            Expect::Revision(revision),
            Durability::Trailing,
            |revision| template.stamp(revision),
        );
    }
}

fn status(budget: &Value, count: Count, now: &str) -> Value {
    let (value, reason) = if count.allowed() > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let generation = number(budget, &["metadata", "generation"]).unwrap_or(0);
    let since = items(budget, &["status", "conditions"])
        .iter()
        .find(|condition| text(condition, &["status"]) == value)
        .map_or(now, |condition| text(condition, &["lastTransitionTime"]));
    json!({
        "currentHealthy": count.healthy, "desiredHealthy": count.desired, "expectedPods": count.expected,
        "disruptionsAllowed": count.allowed(), "observedGeneration": generation,
        "conditions": [{"type": "DisruptionAllowed", "status": value, "reason": reason, "message": "",
            "lastTransitionTime": since, "observedGeneration": generation}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: bool, owner: &str) -> Value {
        json!({
            "metadata": {"name": "p", "labels": {"app": "a"}, "ownerReferences": [{"uid": owner, "controller": true}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        })
    }

    #[test]
    fn allowed_disruptions_as_a_table() {
        let replicas = BTreeMap::from([("rs".to_owned(), 4)]);
        let budget = |spec: Value| {
            let mut budget = json!({"spec": {"selector": {"matchLabels": {"app": "a"}}}});
            for (key, value) in spec.as_object().into_iter().flatten() {
                budget["spec"][key] = value.clone();
            }
            budget
        };
        for (spec, ready, expected) in [
            (json!({"minAvailable": 3}), 4, (4, 4, 3, 1)),
            (json!({"minAvailable": "50%"}), 4, (4, 4, 2, 2)),
            (json!({"minAvailable": "51%"}), 4, (4, 4, 3, 1)),
            (json!({"maxUnavailable": 1}), 4, (4, 4, 3, 1)),
            (json!({"maxUnavailable": 1}), 3, (4, 3, 3, 0)),
            (json!({"maxUnavailable": "100%"}), 1, (4, 1, 0, 1)),
            (json!({"minAvailable": 9}), 4, (4, 4, 9, 0)),
        ] {
            let pods: Vec<Value> = (0..4).map(|n| pod(n < ready, "rs")).collect();
            let found = count(&budget(spec.clone()), &pods, &replicas);
            assert_eq!(
                (
                    found.expected,
                    found.healthy,
                    found.desired,
                    found.allowed()
                ),
                expected,
                "{spec}"
            );
        }
    }
}
