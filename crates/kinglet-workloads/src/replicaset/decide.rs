//! How many Pods to create, which to delete, and what the status says: pure.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kinglet_reconcile::{annotation, owner_reference};

use crate::pods::{self, Availability};

/// The most Pods created or deleted in one go, as in Kubernetes.
const BURST: usize = 500;

/// What to do about the number of Pods.
#[derive(Debug, PartialEq)]
pub(super) enum Scale {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active Pods with the number wanted.
pub(super) fn scale(set: &ReplicaSet, active: &[Arc<Pod>], now: Timestamp) -> Scale {
    let wanted = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() < wanted {
        return Scale::Create((wanted - active.len()).min(BURST));
    }
    let excess = (active.len() - wanted).min(BURST);
    if excess == 0 {
        return Scale::Keep;
    }
    let mut order = active.to_vec();
    order.sort_by_key(|pod| worth(pod, now));
    order.truncate(excess);
    Scale::Delete(order)
}

/// What a Pod is worth keeping; the least worthy goes first (the order of Kubernetes): not bound, not running, not ready,
/// low deletion cost, ready for a shorter time, more restarts, younger; the name decides between equals.
pub(crate) fn worth(pod: &Pod, now: Timestamp) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let ready = pods::is_ready(pod);
    let cost: i64 = annotation(pod, "controller.kubernetes.io/pod-deletion-cost")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let ready_since =
        pods::condition(pod, "Ready").and_then(|condition| condition.last_transition_time.as_ref());
    let ready_for = ready_since.map_or(0, |since| now.duration_since(since.0).as_secs());
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses
        .into_iter()
        .flatten()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let name = pod.metadata.name.clone();
    (
        pods::node_of(pod).is_some(),
        phase,
        ready,
        cost,
        ready_for,
        Reverse(restarts),
        Reverse(created),
        name,
    )
}

/// The Pod that the template asks for.
pub(super) fn pod(set: &ReplicaSet) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let of_template = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or(""))),
            namespace: set.metadata.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![owner_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The status, and when a Pod becomes available just by waiting.
pub(super) fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let template = spec
        .template
        .and_then(|template| template.metadata)
        .and_then(|meta| meta.labels)
        .unwrap_or_default();
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template
            .iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let mut again: Option<Duration> = None;
    let mut available = 0;
    for pod in active {
        match pods::availability(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            Availability::Available => available += 1,
            Availability::Soon(left) => again = Some(again.map_or(left, |other| other.min(left))),
            Availability::Unavailable => {}
        }
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let some = |number: usize| (number != 0).then(|| count(number));
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some(active.iter().filter(|pod| labelled(pod)).count()),
        ready_replicas: some(active.iter().filter(|pod| pods::is_ready(pod)).count()),
        available_replicas: some(available),
        observed_generation: set.metadata.generation,
        terminating_replicas: None,
        conditions: conditions(set, failure, now),
    };
    (status, again)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<(&'static str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let before = known
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure")
        .cloned();
    let mut out: Vec<_> = known
        .into_iter()
        .filter(|condition| condition.type_ != "ReplicaFailure")
        .collect();
    match (failure, before) {
        // The first words stay: a message with another generated name each time would make every retry a change.
        (Some((reason, _)), Some(before)) if before.reason.as_deref() == Some(reason) => {
            out.push(before)
        }
        (Some((reason, message)), _) => out.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(crate::time::whole_seconds(now))),
        }),
        (None, _) => {}
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "a", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}
        }))
        .unwrap()
    }

    fn pod(name: &str, node: Option<&str>, phase: &str, ready_since: Option<i64>) -> Arc<Pod> {
        let since = ready_since.map(|second| Timestamp::from_second(second).unwrap().to_string());
        let conditions = since
            .map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "a", "labels": {"app": "x"}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": conditions}
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_least_worthy_goes_first() {
        let pods = vec![
            pod("old", Some("n"), "Running", Some(1000)),
            pod("young", Some("n"), "Running", Some(900_000)),
            pod("starting", Some("n"), "Pending", None),
            pod("unbound", None, "Pending", None),
        ];
        let Scale::Delete(victims) = scale(&set(1), &pods, now()) else {
            panic!("pods are deleted")
        };
        let names: Vec<_> = victims
            .iter()
            .map(|pod| pod.metadata.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, ["unbound", "starting", "young"]);
        assert_eq!(scale(&set(4), &pods, now()), Scale::Keep);
        assert_eq!(scale(&set(6), &pods, now()), Scale::Create(2));
    }

    #[test]
    fn the_status_counts_and_remembers_the_first_words_of_a_failure() {
        let pods = vec![
            pod("a", Some("n"), "Running", Some(1000)),
            pod("b", Some("n"), "Pending", None),
        ];
        let (first, _) = status(
            &set(3),
            &pods,
            Some(("FailedCreate", "pods \"r-1\" is forbidden".into())),
            now(),
        );
        assert_eq!(
            (
                first.replicas,
                first.ready_replicas,
                first.fully_labeled_replicas,
                first.observed_generation
            ),
            (2, Some(1), Some(2), Some(3))
        );
        let mut later = set(3);
        later.status = Some(first.clone());
        let (second, _) = status(
            &later,
            &pods,
            Some(("FailedCreate", "pods \"r-2\" is forbidden".into())),
            now(),
        );
        assert_eq!(second, first);
        let (healed, _) = status(&later, &pods, None, now());
        assert_eq!(healed.conditions, None);
    }

    #[test]
    fn a_pod_becomes_available_by_waiting() {
        let mut set = set(1);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
        let (status, again) = status(
            &set,
            &[pod("a", Some("n"), "Running", Some(999_996))],
            None,
            now(),
        );
        assert_eq!(
            (status.available_replicas, again),
            (None, Some(Duration::from_secs(6)))
        );
    }
}
