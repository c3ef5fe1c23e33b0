//! What may be in a container's environment.

use serde_json::Value;

use crate::object::{blank, items, text};
use crate::rules::data::config_key;
use crate::status::Cause;

const NOT_A_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const SOURCES: [&str; 4] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
];
/// Fields of its pod that a variable can hold.
const POD_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that Kubernetes knows by this name, but not for a variable.
const OTHER_FIELDS: [&str; 7] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.hostNetwork",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.nominatedNodeName",
    "status.phase",
];
/// Resources that a variable or a file can hold.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn check(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, variable) in items(container, &["env"]).iter().enumerate() {
        let at = format!("{path}.env[{index}]");
        let name = text(variable, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !is_name(name) {
            causes.push(Cause::invalid(
                format!("{at}.name"),
                &name.into(),
                NOT_A_NAME,
            ));
        }
        if !variable["valueFrom"].is_null() {
            value_from(variable, &format!("{at}.valueFrom"), causes);
        }
    }
    for (index, source) in items(container, &["envFrom"]).iter().enumerate() {
        let prefix = text(source, &["prefix"]);
        if !prefix.is_empty() && !is_name(prefix) {
            causes.push(Cause::invalid(
                format!("{path}.envFrom[{index}].prefix"),
                &prefix.into(),
                NOT_A_NAME,
            ));
        }
        let known = |name: &&str| source[*name].is_object();
        one_source(
            ["configMapRef", "secretRef"]
                .iter()
                .filter(|name| known(name))
                .count(),
            "must specify one of: `configMapRef` or `secretRef`",
            // Kubernetes names the list here, not the item.
            &format!("{path}.envFrom"),
            causes,
        );
    }
}

fn is_name(name: &str) -> bool {
    !name.contains('=') && name.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn one_source(count: usize, none: &str, path: &str, causes: &mut Vec<Cause>) {
    let wrong = match count {
        0 => none,
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    causes.push(Cause::invalid(path, &"".into(), wrong));
}

fn value_from(variable: &Value, path: &str, causes: &mut Vec<Cause>) {
    let from = &variable["valueFrom"];
    if !text(variable, &["value"]).is_empty() && !blank(Some(from)) {
        causes.push(Cause::invalid(
            path,
            &"".into(),
            "may not be specified when `value` is not empty",
        ));
    }
    one_source(
        SOURCES
            .iter()
            .filter(|name| from[**name].is_object())
            .count(),
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        path,
        causes,
    );
    if from["fieldRef"].is_object() {
        pod_field(
            text(from, &["fieldRef", "fieldPath"]),
            &format!("{path}.fieldRef.fieldPath"),
            causes,
        );
    }
    if from["resourceFieldRef"].is_object() {
        resource_field(
            text(from, &["resourceFieldRef", "resource"]),
            &format!("{path}.resourceFieldRef.resource"),
            causes,
        );
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if !from[source].is_object() {
            continue;
        }
        let key = text(from, &[source, "key"]);
        if key.is_empty() {
            causes.push(Cause::required(format!("{path}.{source}.key"), ""));
        } else if let Some(wrong) = config_key(key) {
            causes.push(Cause::invalid(
                format!("{path}.{source}.key"),
                &key.into(),
                wrong,
            ));
        }
    }
}

fn pod_field(field: &str, path: &str, causes: &mut Vec<Cause>) {
    let is_one_of_many = ["metadata.annotations['", "metadata.labels['"]
        .iter()
        .any(|start| field.starts_with(start) && field.ends_with("']"));
    if field.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if OTHER_FIELDS.contains(&field) {
        causes.push(Cause::unsupported(path, &field.into(), &POD_FIELDS));
    } else if !POD_FIELDS.contains(&field) && !is_one_of_many {
        causes.push(Cause::invalid(
            path,
            &field.into(),
            &format!("error converting fieldPath: field label not supported: {field}"),
        ));
    }
}

/// A resource that a variable or a file is to hold.
pub(super) fn resource_field(resource: &str, path: &str, causes: &mut Vec<Cause>) {
    let is_pages =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if resource.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if !RESOURCES.contains(&resource) && !is_pages {
        causes.push(Cause::unsupported(path, &resource.into(), &RESOURCES));
    }
}
