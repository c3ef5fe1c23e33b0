//! What may be in a Service.

use serde_json::Value;

use super::{pod, port_number};
use crate::names;
use crate::object::{at, items, number, text};
use crate::status::Cause;

pub(super) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let kind = text(spec, &["type"]);
    if kind == "ExternalName" {
        let name = text(spec, &["externalName"]);
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(wrong) = names::subdomain(name.trim_end_matches('.')) {
            causes.push(Cause::invalid("spec.externalName", &name.into(), &wrong));
        }
    }
    let ports = items(spec, &["ports"]);
    if ports.is_empty() && kind != "ExternalName" && text(spec, &["clusterIP"]) != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut seen = std::collections::HashSet::new();
    let mut named = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = text(port, &["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{path}.name"), ""));
            }
        } else if let Some(wrong) = names::label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), &wrong));
        } else if !named.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        port_number(port.get("port"), &format!("{path}.port"), causes);
        let protocol = text(port, &["protocol"]);
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(
                format!("{path}.protocol"),
                &protocol.into(),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        match port.get("targetPort") {
            Some(Value::String(name)) => {
                if let Some(wrong) = pod::port_name(name) {
                    causes.push(Cause::invalid(
                        format!("{path}.targetPort"),
                        &name.as_str().into(),
                        &wrong,
                    ));
                }
            }
            target => port_number(target, &format!("{path}.targetPort"), causes),
        }
        if !seen.insert((number(port, &["port"]), protocol)) {
            let value = serde_json::json!({"port": port["port"], "protocol": protocol});
            causes.push(Cause::duplicate(path, &value));
        }
    }
    names::check_labels(spec.get("selector"), "spec.selector", causes);
    if !matches!(
        kind,
        "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName"
    ) {
        causes.push(Cause::unsupported(
            "spec.type",
            &kind.into(),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        ));
    }
    if let Some(old) = old {
        let (now, before) = (
            text(spec, &["clusterIP"]),
            text(&old["spec"], &["clusterIP"]),
        );
        if !before.is_empty()
            && text(&old["spec"], &["type"]) != "ExternalName"
            && kind != "ExternalName"
            && now != before
        {
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &at(spec, &["clusterIPs"]).cloned().unwrap_or_default(),
                "may not change once set",
            ));
        }
    }
}
