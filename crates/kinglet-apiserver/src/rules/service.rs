//! What may be in a Service.

use std::collections::HashSet;

use serde_json::Value;

use super::{one_of, pod, port_number};
use crate::names;
use crate::object::{at, items, number, text};
use crate::status::Cause;

/// Seconds of a day: as long as a client may stick to a pod.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let kind = text(spec, &["type"]);
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&kind) {
        causes.push(Cause::unsupported("spec.type", &kind.into(), &types));
    }
    if kind == "ExternalName" {
        let name = text(spec, &["externalName"]);
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(wrong) = names::subdomain(name.trim_end_matches('.')) {
            causes.push(Cause::invalid("spec.externalName", &name.into(), &wrong));
        }
    }
    ports(spec, causes);
    names::check_labels(spec.get("selector"), "spec.selector", causes);
    affinity(spec, causes);
    traffic(spec, old, causes);
    if let Some(old) = old {
        same_address(spec, &old["spec"], causes);
    }
}

fn ports(spec: &Value, causes: &mut Vec<Cause>) {
    let kind = text(spec, &["type"]);
    let ports = items(spec, &["ports"]);
    if ports.is_empty() && kind != "ExternalName" && text(spec, &["clusterIP"]) != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let (mut seen, mut named) = (HashSet::new(), HashSet::new());
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
        target(
            port.get("targetPort"),
            &format!("{path}.targetPort"),
            causes,
        );
        if !seen.insert((number(port, &["port"]), protocol)) {
            let value = serde_json::json!({"port": port["port"], "protocol": protocol});
            causes.push(Cause::duplicate(path, &value));
        }
    }
}

fn target(port: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    match port {
        Some(Value::String(name)) => {
            for wrong in pod::port_name(name) {
                causes.push(Cause::invalid(path, &name.as_str().into(), wrong));
            }
        }
        number => port_number(number, path, causes),
    }
}

fn affinity(spec: &Value, causes: &mut Vec<Cause>) {
    one_of(
        spec,
        "sessionAffinity",
        &["ClientIP", "None"],
        "spec",
        causes,
    );
    let seconds = number(
        spec,
        &["sessionAffinityConfig", "clientIP", "timeoutSeconds"],
    );
    if let Some(seconds) = seconds.filter(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(seconds)) {
        causes.push(Cause::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            &seconds.into(),
            &format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
        ));
    }
}

/// Policies and node ports, which belong to some types only; what was there before may stay when the type changes.
fn traffic(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let is_new = |field: &str| old.is_none_or(|old| old["spec"][field] != spec[field]);
    let is_external = matches!(text(spec, &["type"]), "NodePort" | "LoadBalancer");
    let policies = ["Cluster", "Local"];
    one_of(spec, "internalTrafficPolicy", &policies, "spec", causes);
    let policy = text(spec, &["externalTrafficPolicy"]);
    if is_external {
        one_of(spec, "externalTrafficPolicy", &policies, "spec", causes);
    } else if !policy.is_empty() && is_new("externalTrafficPolicy") {
        causes.push(Cause::invalid(
            "spec.externalTrafficPolicy",
            &policy.into(),
            "may only be set for externally-accessible services",
        ));
    }
    one_of(
        spec,
        "trafficDistribution",
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
        "spec",
        causes,
    );
    if text(spec, &["type"]) == "ClusterIP" && is_new("ports") {
        let before = old.map_or(&[][..], |old| items(old, &["spec", "ports"]));
        for (index, port) in items(spec, &["ports"]).iter().enumerate() {
            let asked = number(port, &["nodePort"]).filter(|port| *port != 0);
            let was_there = before.iter().any(|old| old["nodePort"] == port["nodePort"]);
            if asked.is_some() && !was_there {
                causes.push(Cause::forbidden(
                    format!("spec.ports[{index}].nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                ));
            }
        }
    }
}

fn same_address(spec: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (now, before) = (text(spec, &["clusterIP"]), text(old, &["clusterIP"]));
    if !before.is_empty()
        && text(old, &["type"]) != "ExternalName"
        && text(spec, &["type"]) != "ExternalName"
        && now != before
    {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &at(spec, &["clusterIPs"]).cloned().unwrap_or_default(),
            "may not change once set",
        ));
    }
}
