//! What may be in Endpoints and EndpointSlices.

use serde_json::Value;

use super::port_number;
use crate::object::{items, text};
use crate::status::Cause;

fn ip(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value
        .as_str()
        .is_none_or(|text| text.parse::<std::net::IpAddr>().is_err())
    {
        causes.push(Cause::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
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
