//! Takes running Pods off a node that has a taint with the effect NoExecute, at once or after the time that they tolerate it.
//!
//! Flow: Node or Pod event -> [`eviction`] (pure) -> the condition `DisruptionTarget`, an Event, and the deletion of the Pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kinglet_reconcile::{Cascade, Context, Controller, Key, Next, Plan, ReconcileError, key_of};
use parking_lot::Mutex;

use crate::binder::tolerates;
use crate::pods;

/// Name in events, as in Kubernetes'.
const NAME: &str = "taint-eviction-controller";
const DISRUPTION: &str = "DisruptionTarget";

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let cache = context.cache::<Pod>();
    let noticed = Arc::<Noticed>::default();
    Controller::<Pod>::only(NAME, |pod| {
        pods::node_of(pod).is_some() && pods::is_active(pod)
    })
    .watches::<Node, _>(move |node| {
        let name = node.metadata.name.clone();
        let on_node = |pod: &Pod| pods::node_of(pod) == name.as_deref();
        cache
            .all()
            .into_iter()
            .filter(|pod| on_node(pod))
            .map(|pod| key_of(&*pod))
            .collect::<Vec<_>>()
    })
    .workers(1)
    .run(context, move |context, key| {
        reconcile(context, Arc::clone(&noticed), key)
    });
}

fn is_tainted(node: &Node) -> bool {
    no_execute(node).next().is_some()
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute")
}

/// Since when Pods are seen on a tainted node, and with which taints. Kubernetes measures so, too: a taint rarely says when it
/// came. As many as there are Pods on the node.
type Noticed = Mutex<HashMap<Key, (Vec<(String, Option<String>)>, Timestamp)>>;

async fn reconcile(
    context: Context,
    noticed: Arc<Noticed>,
    key: Key,
) -> Result<Next, ReconcileError> {
    let pod = context.cache::<Pod>().find(&key);
    let node = pod
        .as_deref()
        .filter(|pod| pods::is_active(pod))
        .and_then(pods::node_of)
        .and_then(|name| context.cache::<Node>().get("", name))
        .filter(|node| is_tainted(node));
    let (Some(pod), Some(node)) = (pod, node) else {
        noticed.lock().remove(&key);
        return Ok(Next::Done);
    };
    let now = context.now();
    let spec = pod.spec.clone().unwrap_or_default();
    let taints: Vec<&Taint> = no_execute(&node).collect();
    let since = {
        let named = taints
            .iter()
            .map(|taint| (taint.key.clone(), taint.value.clone()));
        let named: Vec<_> = named.collect();
        let mut noticed = noticed.lock();
        let known = noticed
            .entry(key.clone())
            .or_insert_with(|| (named.clone(), now));
        if known.0 != named {
            *known = (named, now);
        }
        known.1
    };
    match eviction(&spec, &taints, since, now) {
        None => Ok(Next::Done),
        Some(left) if !left.is_zero() => Ok(Next::After(left)),
        Some(_) => context.apply(evict(&pod, &key, now)).await,
    }
}

/// How long the Pod may stay: for ever (`None`), or so long. The shortest of the times that its tolerations give counts.
fn eviction(
    spec: &PodSpec,
    taints: &[&Taint],
    since: Timestamp,
    now: Timestamp,
) -> Option<Duration> {
    let mut least: Option<i64> = None;
    for taint in taints {
        let tolerations = spec.tolerations.iter().flatten();
        let mut fitting = tolerations
            .filter(|toleration| tolerates(toleration, taint))
            .peekable();
        if fitting.peek().is_none() {
            return Some(Duration::ZERO);
        }
        let shortest = fitting.filter_map(|one| one.toleration_seconds).min();
        least = [least, shortest].into_iter().flatten().min();
    }
    let seconds = u64::try_from(least?).unwrap_or(0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(Duration::from_secs(seconds).saturating_sub(passed))
}

fn evict(pod: &Pod, key: &Key, now: Timestamp) -> Plan {
    let mut status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != DISRUPTION);
    conditions.push(PodCondition {
        type_: DISRUPTION.to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(Time(crate::time::whole_seconds(now))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    });
    let mut plan = Plan::new();
    plan.status(pod, &status);
    plan.normal(
        pod,
        "TaintManagerEviction",
        format!("Marking for deletion Pod {key}"),
    );
    plan.delete(pod, Cascade::Background);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_row_per_toleration() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let stay = None;
        let left = |seconds| Some(Duration::from_secs(seconds));
        let rows: [(&str, Value, Option<Duration>); 7] = [
            ("none", json!([]), left(0)),
            (
                "for ever",
                json!([{"key": "k", "operator": "Exists"}]),
                stay,
            ),
            (
                "for a while, since the taint was noticed",
                json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]),
                left(50),
            ),
            (
                "the shortest of several",
                json!([{"operator": "Exists", "tolerationSeconds": 600}, {"key": "k", "operator": "Exists", "tolerationSeconds": 30}]),
                left(20),
            ),
            (
                "time is over",
                json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 5}]),
                left(0),
            ),
            (
                "a negative time",
                json!([{"key": "k", "operator": "Exists", "tolerationSeconds": -1}]),
                left(0),
            ),
            (
                "another effect",
                json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]),
                left(0),
            ),
        ];
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "effect": "NoExecute"})).unwrap();
        for (name, tolerations, expected) in rows {
            let spec: PodSpec =
                serde_json::from_value(json!({"containers": [], "tolerations": tolerations}))
                    .unwrap();
            let found = eviction(&spec, &[&taint], at(90), at(100));
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(eviction(&PodSpec::default(), &[], at(1), at(1)), None);
    }
}
