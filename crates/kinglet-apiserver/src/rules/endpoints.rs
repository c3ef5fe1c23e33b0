//! What may be in Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::port_number;
use crate::object::{items, text};
use crate::status::Cause;

/// An address that traffic may be sent to on behalf of who wrote the object (Kubernetes' rule and words).
fn ip(value: &Value, path: String, causes: &mut Vec<Cause>) {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<IpAddr>().ok())
        // An IPv4 address in IPv6 clothes is what it is.
        .map(|address| address.to_canonical());
    let problem = match parsed {
        None => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        Some(address) => special(address),
    };
    if let Some(problem) = problem {
        causes.push(Cause::invalid(path, value, problem));
    }
}

/// Why an address belongs to the machine itself or to its wire.
fn special(address: IpAddr) -> Option<&'static str> {
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.is_multicast() && v6.segments()[0] & 0x0f == 2,
        ),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

pub(super) fn endpoints(object: &Value, causes: &mut Vec<Cause>) {
    for (index, subset) in items(object, &["subsets"]).iter().enumerate() {
        let path = format!("subsets[{index}]");
        let (ready, not_ready) = (
            items(subset, &["addresses"]),
            items(subset, &["notReadyAddresses"]),
        );
        if ready.is_empty() && not_ready.is_empty() {
            causes.push(Cause::required(
                path.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (list, name) in [(ready, "addresses"), (not_ready, "notReadyAddresses")] {
            for (at, address) in list.iter().enumerate() {
                ip(&address["ip"], format!("{path}.{name}[{at}].ip"), causes);
            }
        }
        let ports = items(subset, &["ports"]);
        for (at, port) in ports.iter().enumerate() {
            if ports.len() > 1 && text(port, &["name"]).is_empty() {
                causes.push(Cause::required(format!("{path}.ports[{at}].name"), ""));
            }
            port_number(
                port.get("port"),
                &format!("{path}.ports[{at}].port"),
                causes,
            );
        }
    }
}

pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = text(object, &["addressType"]);
    match family {
        "" => causes.push(Cause::required("addressType", "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => causes.push(Cause::unsupported(
            "addressType",
            &other.into(),
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    for (index, endpoint) in items(object, &["endpoints"]).iter().enumerate() {
        let addresses = items(endpoint, &["addresses"]);
        if addresses.is_empty() {
            causes.push(Cause::required(
                format!("endpoints[{index}].addresses"),
                "must contain at least 1 address",
            ));
        }
        if family != "FQDN" {
            for (at, address) in addresses.iter().enumerate() {
                ip(
                    address,
                    format!("endpoints[{index}].addresses[{at}]"),
                    causes,
                );
            }
        }
    }
    if let Some(old) = old
        && object["addressType"] != old["addressType"]
    {
        causes.push(Cause::invalid(
            "addressType",
            &object["addressType"],
            "field is immutable",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nobody_sends_traffic_to_the_machine_itself() {
        for (address, word) in [
            ("127.0.0.1", "loopback"),
            ("127.8.8.8", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("169.254.169.254", "link-local range"),
            ("::ffff:169.254.169.254", "link-local range"),
            ("fe80::1", "link-local range"),
            ("224.0.0.251", "multicast"),
            ("ff02::1", "multicast"),
            ("127.1", "must be a valid IP"),
            ("0x7f000001", "must be a valid IP"),
        ] {
            let mut causes = Vec::new();
            let object =
                json!({"subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 22}]}]});
            endpoints(&object, &mut causes);
            let kind = if address.contains(':') {
                "IPv6"
            } else {
                "IPv4"
            };
            let slice = json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
            endpoint_slice(&slice, None, &mut causes);
            let said = format!("{causes:?}");
            assert_eq!(causes.len(), 2, "{address}: {said}");
            assert!(said.contains(word), "{address}: {said}");
        }
        let mut causes = Vec::new();
        let object =
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 22}]}]});
        endpoints(&object, &mut causes);
        assert!(causes.is_empty(), "{causes:?}");
    }
}
