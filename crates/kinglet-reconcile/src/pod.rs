//! How a Pod stands, read in one place for every controller.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodCondition};

/// The condition of that type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the Pod takes requests.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    kinglet_quantity::pod::is_ready(
        conditions
            .flatten()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str())),
    )
}

/// The phase, empty before the first status.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

/// Whether its containers ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it counts as a replica: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The node it is bound to.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// The ports of its node that it asks for: of its containers, and of init containers that stay.
pub fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = pod.spec.iter().flat_map(move |spec| {
        let init = spec.init_containers.iter().flatten().filter(stays);
        spec.containers.iter().chain(init)
    });
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.is_some_and(|number| number != 0))
}

/// The address of its node that a host port is asked for on; `None` is every one.
pub fn host_ip(port: &ContainerPort) -> Option<&str> {
    port.host_ip
        .as_deref()
        .filter(|text| !matches!(*text, "" | "0.0.0.0" | "::"))
}

/// Whether two host ports, each with its address, cannot be had at once. A port without an address is taken on all of them.
pub fn host_ports_conflict<Address: PartialEq, Port: PartialEq>(
    (address, port): (Option<Address>, Port),
    (other_address, other_port): (Option<Address>, Port),
) -> bool {
    let same_address = match (address, other_address) {
        (Some(one), Some(another)) => one == another,
        _ => true,
    };
    same_address && port == other_port
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_ports_of_containers_that_stay() {
        let pod = json!({"metadata": {}, "spec": {
            "containers": [{"name": "c", "ports": [
                {"containerPort": 8080},
                {"containerPort": 8080, "hostPort": 0},
                {"containerPort": 80, "hostPort": 1000, "hostIP": "0.0.0.0"},
            ]}],
            "initContainers": [
                {"name": "stays", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 1001, "hostIP": "192.0.2.1"}]},
                {"name": "ends", "ports": [{"containerPort": 2, "hostPort": 1002}]},
            ]
        }});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let found: Vec<_> = host_ports(&pod)
            .map(|port| (port.host_port, host_ip(port)))
            .collect();
        assert_eq!(found, [(Some(1000), None), (Some(1001), Some("192.0.2.1"))]);
    }

    #[test]
    fn a_port_without_an_address_is_taken_on_all() {
        for (one, other, expected) in [
            ((None, 80), (None, 80), true),
            ((None, 80), (None, 81), false),
            ((None, 80), (Some("a"), 80), true),
            ((Some("a"), 80), (Some("a"), 80), true),
            ((Some("a"), 80), (Some("b"), 80), false),
        ] {
            assert_eq!(
                host_ports_conflict(one, other),
                expected,
                "{one:?} {other:?}"
            );
            assert_eq!(
                host_ports_conflict(other, one),
                expected,
                "{other:?} {one:?}"
            );
        }
    }
}
