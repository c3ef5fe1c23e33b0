//! Ports of a node that Pods ask for (`hostPort`): pure.

use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::pod;

/// One port of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// `None` is every address of the node.
    address: Option<String>,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        pod::host_ports_conflict(
            (self.address.as_deref(), (&self.protocol, self.port)),
            (other.address.as_deref(), (&other.protocol, other.port)),
        )
    }
}

/// What a Pod asks for.
pub(super) fn of(pod: &Pod) -> Vec<HostPort> {
    let wanted = pod::host_ports(pod).filter_map(|port| {
        Some(HostPort {
            address: pod::host_ip(port).map(str::to_owned),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port?,
        })
    });
    wanted.collect()
}

/// Whether nobody has any of the ports that are wanted.
pub(super) fn are_free(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    !wanted
        .iter()
        .any(|port| taken.iter().any(|other| port.conflicts(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ports(ports: Value) -> Vec<HostPort> {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
        of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_row_per_pair() {
        let one = |port: i32, protocol: &str, address: &str| {
            ports(
                json!([{"containerPort": 1, "hostPort": port, "protocol": protocol, "hostIP": address}]),
            )
        };
        for (what, left, right, free) in [
            ("the same", one(80, "TCP", ""), one(80, "TCP", ""), false),
            ("another port", one(80, "TCP", ""), one(81, "TCP", ""), true),
            (
                "another protocol",
                one(80, "TCP", ""),
                one(80, "UDP", ""),
                true,
            ),
            (
                "every address and one",
                one(80, "TCP", "0.0.0.0"),
                one(80, "TCP", "192.0.2.1"),
                false,
            ),
            (
                "two addresses",
                one(80, "TCP", "192.0.2.2"),
                one(80, "TCP", "192.0.2.1"),
                true,
            ),
            (
                "none wanted",
                ports(json!([{"containerPort": 80}])),
                one(80, "TCP", ""),
                true,
            ),
        ] {
            assert_eq!(are_free(&left, &right), free, "{what}");
            assert_eq!(are_free(&right, &left), free, "{what}");
        }
    }
}
