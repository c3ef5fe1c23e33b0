//! Pods of one Revision: how many are ready, and where.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
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
                "Running" if has_ready_condition(pod) => counts.ready += 1,
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
    phase(pod) == "Running" && !is_deleting(pod) && has_ready_condition(pod)
}

/// The pod's address, once it has one.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}

/// Port of the user container as the Pod declares it.
pub fn user_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some(USER_PORT_NAME))?;
    u16::try_from(port.container_port).ok()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn has_ready_condition(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
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
        let pods =
            [pod("r", "a", "10.0.0.1", true, false), pod("r", "b", "10.0.0.2", false, false), pod("r", "c", "10.0.0.3", true, true), pending, done];
        assert_eq!(PodCounts::of(&pods), PodCounts { ready: 1, not_ready: 3, pending: 1, terminating: 1 });
        assert!(takes_requests(&pods[0]) && !takes_requests(&pods[1]) && !takes_requests(&pods[2]));
        assert_eq!(user_port(&pods[0]), Some(8080));
        assert_eq!(address(&pods[0]), Some("10.0.0.1".parse().unwrap()));
    }
}
