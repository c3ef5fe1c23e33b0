//! Pods of one Revision: how many are ready, and where.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kinglet_reconcile::pod::is_ready;
use kinglet_reconcile::{Cache, is_deleting};

use kinglet_api::keys;

/// Name of the port on which the user container listens, in the Pod template.
pub const USER_PORT_NAME: &str = "user-port";

/// Pods by state, as Knative's autoscaler counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Running and ready.
    pub ready: u32,
    /// Pending, not ready or on their way out.
    pub not_ready: u32,
    /// Not running yet.
    pub pending: u32,
    /// Running, deletion asked for.
    pub terminating: u32,
}

impl PodCounts {
    /// Counts pods of one Revision.
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let mut counts = Self::default();
        for pod in pods {
            match phase(pod) {
                "Pending" => {
                    counts.pending += 1;
                    counts.not_ready += 1;
                }
                "Running" if is_deleting(pod) => {
                    counts.terminating += 1;
                    counts.not_ready += 1;
                }
                "Running" if is_ready(pod) => counts.ready += 1,
                "Running" => counts.not_ready += 1,
                _ => {}
            }
        }
        counts
    }
}

/// The pods that carry a Revision's name.
pub fn of_revision(cache: &Cache<Pod>, namespace: &str, revision: &str) -> Vec<Arc<Pod>> {
    cache.select(namespace, [(keys::REVISION, revision)])
}

/// Whether the pod may be sent requests.
pub fn takes_requests(pod: &Pod) -> bool {
    phase(pod) == "Running" && !is_deleting(pod) && is_ready(pod)
}

/// The pod's address, once it has one.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}

/// Port of the user container as the Pod declares it.
pub fn user_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let ports = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let port = ports
        .into_iter()
        .find(|port| port.name.as_deref() == Some(USER_PORT_NAME))?;
    u16::try_from(port.container_port).ok()
}

/// Why the pods do not get ready, if one of them says so: not scheduled, image missing, crashed.
///
/// A pod that is merely on its way says nothing.
pub fn trouble<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Option<String> {
    let stuck = |pod: &&Pod| !is_deleting(*pod) && !is_ready(pod);
    pods.into_iter().filter(stuck).find_map(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        let why = unscheduled(pod).or_else(|| containers(pod).find_map(failure))?;
        Some(format!("Pod {name}: {why}"))
    })
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let refused = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(with_message(
        refused.reason.as_deref().unwrap_or("Unschedulable"),
        refused.message.as_deref(),
    ))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|status| status.init_container_statuses.as_ref())
        .into_iter()
        .flatten();
    init.chain(
        status
            .and_then(|status| status.container_statuses.as_ref())
            .into_iter()
            .flatten(),
    )
}

fn failure(container: &ContainerStatus) -> Option<String> {
    let name = &container.name;
    let state = |state: Option<&ContainerState>| state.and_then(|state| state.terminated.clone());
    let ended = state(container.state.as_ref()).or_else(|| state(container.last_state.as_ref()));
    if let Some(ended) = ended.filter(|_| !container.ready) {
        let code = format!("container {name} exited with code {}", ended.exit_code);
        return Some(with_message(&code, ended.message.as_deref()));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let on_its_way = |reason: &str| matches!(reason, "ContainerCreating" | "PodInitializing");
    let silent = waiting.message.as_deref().is_none_or(str::is_empty);
    // One that is being made says something only when it waits for what is not there, such as a Secret.
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| !(on_its_way(reason) && silent))?;
    Some(with_message(
        &format!("container {name}: {reason}"),
        waiting.message.as_deref(),
    ))
}

fn with_message(what: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{what}: {message}"),
        None => what.to_owned(),
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A pod of Revision `revision` in `default`.
    pub(crate) fn pod(revision: &str, name: &str, ip: &str, ready: bool, deleting: bool) -> Pod {
        let mut value = json!({
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {keys::REVISION: revision, keys::REVISION_UID: format!("uid-{revision}")},
            },
            "spec": {"containers": [
                {"name": "user-container", "ports": [{"name": USER_PORT_NAME, "containerPort": 8080}]},
                {"name": "queue-proxy", "ports": [{"name": "queue-port", "containerPort": 8012}]},
            ]},
            "status": {
                "phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        });
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn counts_as_knative() {
        let mut pending = pod("r", "d", "", false, false);
        pending.status.as_mut().unwrap().phase = Some("Pending".to_owned());
        let mut done = pod("r", "e", "", false, false);
        done.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        let pods = [
            pod("r", "a", "10.0.0.1", true, false),
            pod("r", "b", "10.0.0.2", false, false),
            pod("r", "c", "10.0.0.3", true, true),
            pending,
            done,
        ];
        assert_eq!(
            PodCounts::of(&pods),
            PodCounts {
                ready: 1,
                not_ready: 3,
                pending: 1,
                terminating: 1
            }
        );
        assert!(takes_requests(&pods[0]) && !takes_requests(&pods[1]) && !takes_requests(&pods[2]));
        assert_eq!(user_port(&pods[0]), Some(8080));
        assert_eq!(address(&pods[0]), Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn says_why_pods_are_stuck() {
        let with = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let container = |state: serde_json::Value| {
            with(json!({"phase": "Pending", "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]}))
        };
        let rows = [
            (
                container(json!({"waiting": {"reason": "ContainerCreating"}})),
                None,
            ),
            (container(json!({"running": {}})), None),
            (
                container(
                    json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
                ),
                Some("Pod p: container c: ImagePullBackOff: no such image"),
            ),
            (
                container(json!({"terminated": {"exitCode": 5, "message": "boom\n"}})),
                Some("Pod p: container c exited with code 5: boom"),
            ),
            (
                with(
                    json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}]}),
                ),
                Some("Pod p: Unschedulable: no room"),
            ),
            (pod("r", "ready", "10.0.0.1", true, false), None),
        ];
        for (pod, expected) in rows {
            assert_eq!(trouble([&pod]).as_deref(), expected);
        }
    }
}
