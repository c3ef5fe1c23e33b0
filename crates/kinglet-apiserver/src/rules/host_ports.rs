//! Ports of the node that a Pod asks for (`hostPort`).

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::port_number;
use crate::object::{items, text};
use crate::status::Cause;

/// Numbers, addresses, and no port twice.
pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut taken = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec, &[list]).iter().enumerate() {
            for (number, port) in items(container, &["ports"]).iter().enumerate() {
                let at = format!("{path}.{list}[{index}].ports[{number}]");
                let address = text(port, &["hostIP"]);
                if !address.is_empty() && address.parse::<Ipv4Addr>().is_err() {
                    causes.push(Cause::invalid(
                        format!("{at}.hostIP"),
                        &address.into(),
                        "must be a valid IPv4 address: Pods have no other here",
                    ));
                }
                let host_port = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0);
                if host_port == 0 {
                    continue;
                }
                let at = format!("{at}.hostPort");
                port_number(port.get("hostPort"), &at, causes);
                let key = format!("{}/{address}/{host_port}", text(port, &["protocol"]));
                // An init container that ends gives its port back before the others begin.
                let stays = list == "containers" || text(container, &["restartPolicy"]) == "Always";
                if stays && !taken.insert(key.clone()) {
                    causes.push(Cause::duplicate(at, &key.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_per_list_of_ports() {
        let port = |port: i64, ip: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": port, "hostIP": ip});
        for (ports, wrong) in [
            (vec![port(80, ""), port(81, "")], 0),
            (vec![port(80, "192.0.2.1"), port(80, "192.0.2.2")], 0),
            (vec![port(80, ""), port(80, "")], 1),
            (vec![port(70_000, "")], 1),
            (vec![port(80, "::1")], 1),
            (vec![port(80, "localhost")], 1),
            (vec![port(0, "")], 0),
        ] {
            let spec = json!({"containers": [{"name": "c", "ports": ports}]});
            let mut causes = Vec::new();
            check(&spec, "spec", &mut causes);
            assert_eq!(causes.len(), wrong, "{spec}: {causes:?}");
        }
    }
}
