//! What may be in a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::{pod_bounds, port_number, quantity};
use crate::names;
use crate::object::{at, blank, items, number, text};
use crate::status::Cause;

pub(crate) fn validate(pod: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match old {
        None => spec(&pod["spec"], "spec", causes),
        Some(old) => update(pod, old, causes),
    }
}

/// A running pod's specification is as good as fixed.
fn update(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let mut allowed = pod["spec"].clone();
    let before = &old["spec"];
    if let (Some(new), Some(old)) = (allowed.as_object_mut(), before.as_object()) {
        for key in [
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "tolerations",
            "schedulingGates",
        ] {
            match old.get(key) {
                Some(value) => new.insert(key.to_owned(), value.clone()),
                None => new.remove(key),
            };
        }
        for list in ["containers", "initContainers"] {
            let olds = old.get(list).and_then(Value::as_array);
            if let (Some(news), Some(olds)) =
                (new.get_mut(list).and_then(Value::as_array_mut), olds)
            {
                for (new, old) in news.iter_mut().zip(olds) {
                    if let (Some(new), Some(image)) = (new.as_object_mut(), old.get("image")) {
                        new.insert("image".to_owned(), image.clone());
                    }
                }
            }
        }
    }
    if allowed != *before {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    for (index, container) in items(pod, &["spec", "containers"]).iter().enumerate() {
        if text(container, &["image"]).is_empty() {
            causes.push(Cause::required(
                format!("spec.containers[{index}].image"),
                "",
            ));
        }
    }
}

/// A pod's specification, of a pod or of a template.
pub(crate) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let volumes = volumes(spec, path, causes);
    pod_bounds::check(spec, path, causes);
    let containers = items(spec, &["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    super::host_ports::check(spec, path, causes);
    let mut seen = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (index, each) in items(spec, &[list]).iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let name = text(each, &["name"]);
            if !name.is_empty() && !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
            container(each, &at, &volumes, causes);
        }
    }
    let choice = |field: &str, supported: &[&str], causes: &mut Vec<Cause>| {
        let value = text(spec, &[field]);
        if !value.is_empty() && !supported.contains(&value) {
            causes.push(Cause::unsupported(
                format!("{path}.{field}"),
                &value.into(),
                supported,
            ));
        }
    };
    choice("restartPolicy", &["Always", "Never", "OnFailure"], causes);
    choice(
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        causes,
    );
    if number(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        causes.push(Cause::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
    if let Some(seconds) = number(spec, &["activeDeadlineSeconds"])
        .filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        causes.push(Cause::invalid(
            format!("{path}.activeDeadlineSeconds"),
            &seconds.into(),
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    let account = text(spec, &["serviceAccountName"]);
    if !account.is_empty()
        && let Some(wrong) = names::subdomain(account)
    {
        causes.push(Cause::invalid(
            format!("{path}.serviceAccountName"),
            &account.into(),
            &wrong,
        ));
    }
    let host = text(spec, &["hostname"]);
    if !host.is_empty()
        && let Some(wrong) = names::label(host)
    {
        causes.push(Cause::invalid(
            format!("{path}.hostname"),
            &host.into(),
            &wrong,
        ));
    }
    names::check_labels(
        spec.get("nodeSelector"),
        &format!("{path}.nodeSelector"),
        causes,
    );
}

const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

fn volumes<'a>(spec: &'a Value, path: &str, causes: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut volume_names = HashSet::new();
    for (index, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        let name = text(volume, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if let Some(wrong) = names::label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &name.into(), &wrong));
        } else if !volume_names.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
        }
        let sources: Vec<&str> = SOURCES
            .iter()
            .copied()
            .filter(|source| volume.get(*source).is_some_and(|v| !v.is_null()))
            .collect();
        if sources.len() > 1 {
            causes.push(Cause::forbidden(
                format!("{at}.{}", sources[1]),
                "may not specify more than 1 volume type",
            ));
        }
        if sources == ["secret"] && text(volume, &["secret", "secretName"]).is_empty() {
            causes.push(Cause::required(format!("{at}.secret.secretName"), ""));
        }
        if sources == ["configMap"] && text(volume, &["configMap", "name"]).is_empty() {
            causes.push(Cause::required(format!("{at}.configMap.name"), ""));
        }
        if sources == ["hostPath"] && text(volume, &["hostPath", "path"]).is_empty() {
            causes.push(Cause::required(format!("{at}.hostPath.path"), ""));
        }
        if let Some(limit) = at_limit(volume) {
            quantity(limit, &format!("{at}.emptyDir.sizeLimit"), causes);
        }
    }
    volume_names
}

fn at_limit(volume: &Value) -> Option<&Value> {
    at(volume, &["emptyDir", "sizeLimit"])
}

/// What is wrong with the name of a port.
pub(crate) fn port_name(name: &str) -> Option<String> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters".to_owned());
    }
    let good = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !good {
        return Some(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        return Some("must not contain consecutive hyphens".to_owned());
    }
    (name.starts_with('-') || name.ends_with('-'))
        .then(|| "must not begin or end with a hyphen".to_owned())
}

fn container(container: &Value, path: &str, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
    let name = text(container, &["name"]);
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    } else if let Some(wrong) = names::label(name) {
        causes.push(Cause::invalid(format!("{path}.name"), &name.into(), &wrong));
    }
    let image = text(container, &["image"]);
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        causes.push(Cause::invalid(
            format!("{path}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        ));
    }
    let policy = text(container, &["imagePullPolicy"]);
    if !matches!(policy, "" | "Always" | "IfNotPresent" | "Never") {
        causes.push(Cause::unsupported(
            format!("{path}.imagePullPolicy"),
            &policy.into(),
            &["Always", "IfNotPresent", "Never"],
        ));
    }
    let mut named = HashSet::new();
    for (index, port) in items(container, &["ports"]).iter().enumerate() {
        let at = format!("{path}.ports[{index}]");
        port_number(
            port.get("containerPort"),
            &format!("{at}.containerPort"),
            causes,
        );
        let name = text(port, &["name"]);
        if !name.is_empty() {
            if let Some(wrong) = port_name(name) {
                causes.push(Cause::invalid(format!("{at}.name"), &name.into(), &wrong));
            } else if !named.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
        }
        let protocol = text(port, &["protocol"]);
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(
                format!("{at}.protocol"),
                &protocol.into(),
                &["SCTP", "TCP", "UDP"],
            ));
        }
    }
    for (index, variable) in items(container, &["env"]).iter().enumerate() {
        let at = format!("{path}.env[{index}]");
        let name = text(variable, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if name.contains('=') || !name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            causes.push(Cause::invalid(
                format!("{at}.name"),
                &name.into(),
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ));
        }
        if !text(variable, &["value"]).is_empty() && !blank(variable.get("valueFrom")) {
            causes.push(Cause::invalid(
                format!("{at}.valueFrom"),
                &"".into(),
                "may not be specified when `value` is not empty",
            ));
        }
    }
    let mut mounted = HashSet::new();
    for (index, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
        let at = format!("{path}.volumeMounts[{index}]");
        let (name, place) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{at}.name"), &name.into()));
        }
        if place.is_empty() {
            causes.push(Cause::required(format!("{at}.mountPath"), ""));
        } else if !mounted.insert(place) {
            causes.push(Cause::invalid(
                format!("{at}.mountPath"),
                &place.into(),
                "must be unique",
            ));
        }
    }
    resources(container, path, causes);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(each) = container.get(probe).filter(|probe| !probe.is_null()) {
            check_probe(each, probe, &format!("{path}.{probe}"), causes);
        }
    }
}

fn resources(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    use crate::builtin::quantity as quantities;
    for side in ["limits", "requests"] {
        for (name, value) in at(container, &["resources", side])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            quantity(value, &format!("{path}.resources.{side}[{name}]"), causes);
            if side == "requests"
                && let Some(limit) = at(container, &["resources", "limits", name])
                && let (Some(request), Some(bound)) = (quantities::of(value), quantities::of(limit))
                && request > bound
            {
                causes.push(Cause::invalid(
                    format!("{path}.resources.requests"),
                    value,
                    &format!("must be less than or equal to {name} limit of {}", bound),
                ));
            }
        }
    }
}

fn check_probe(probe: &Value, kind: &str, path: &str, causes: &mut Vec<Cause>) {
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|name| probe.get(*name).is_some_and(|h| !h.is_null()))
        .collect();
    match handlers.as_slice() {
        [] => causes.push(Cause::required(path, "must specify a handler type")),
        [_, second, ..] => causes.push(Cause::forbidden(
            format!("{path}.{second}"),
            "may not specify more than 1 handler type",
        )),
        [one] if *one != "exec" => {
            let at = format!("{path}.{one}.port");
            match at_port(probe, one) {
                Some(Value::String(name)) if *one != "grpc" => {
                    if let Some(wrong) = port_name(name) {
                        causes.push(Cause::invalid(at, &name.as_str().into(), &wrong));
                    }
                }
                port => port_number(port, &at, causes),
            }
        }
        [_] => {
            if items(probe, &["exec", "command"]).is_empty() {
                causes.push(Cause::required(format!("{path}.exec.command"), ""));
            }
        }
    }
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(value) = number(probe, &[field]).filter(|value| *value < 0) {
            causes.push(Cause::invalid(
                format!("{path}.{field}"),
                &value.into(),
                "must be greater than or equal to 0",
            ));
        }
    }
    if kind != "readinessProbe"
        && number(probe, &["successThreshold"]).is_some_and(|threshold| threshold > 1)
    {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        ));
    }
}

fn at_port<'a>(probe: &'a Value, handler: &str) -> Option<&'a Value> {
    at(probe, &[handler, "port"])
}
