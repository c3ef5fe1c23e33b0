//! What may be in a container: its name, image, ports, mounts and resources.

use std::collections::HashSet;

use serde_json::Value;

use super::{environment, probe, security, volumes};
use crate::builtin::quantity as quantities;
use crate::names;
use crate::object::{at, items, text};
use crate::rules::{one_of, port_number, quantity};
use crate::status::Cause;

/// Resources that a container may ask for without a domain in front.
const STANDARD_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Checks one container; `grace` is what its pod is given to end.
pub(super) fn check(
    container: &Value,
    path: &str,
    volumes: &HashSet<&str>,
    grace: Option<i64>,
    causes: &mut Vec<Cause>,
) {
    identity(container, path, causes);
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(container, "imagePullPolicy", &policies, path, causes);
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(
        container,
        "terminationMessagePolicy",
        &policies,
        path,
        causes,
    );
    ports(container, path, causes);
    environment::check(container, path, causes);
    mounts(container, path, volumes, causes);
    resources(container, path, causes);
    resize(container, path, causes);
    probe::check_all(container, path, grace, causes);
    security::of_container(&container["securityContext"], path, causes);
}

fn identity(container: &Value, path: &str, causes: &mut Vec<Cause>) {
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
}

fn ports(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut named = HashSet::new();
    for (index, port) in items(container, &["ports"]).iter().enumerate() {
        let at = format!("{path}.ports[{index}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let wrong = port_name(name);
            if wrong.is_empty() && !named.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
            for wrong in wrong {
                causes.push(Cause::invalid(format!("{at}.name"), &name.into(), wrong));
            }
        }
        let number = format!("{at}.containerPort");
        if port["containerPort"].as_i64().unwrap_or(0) == 0 {
            causes.push(Cause::required(number, ""));
        } else {
            port_number(port.get("containerPort"), &number, causes);
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
}

/// Everything that is wrong with the name of a port.
pub(crate) fn port_name(name: &str) -> Vec<&'static str> {
    let rules = [
        (name.len() <= 15, "must be no more than 15 characters"),
        (
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            name.bytes().any(|b| b.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (!name.contains("--"), "must not contain consecutive hyphens"),
        (
            !name.starts_with('-') && !name.ends_with('-'),
            "must not begin or end with a hyphen",
        ),
    ];
    let wrong = rules.into_iter().filter(|(holds, _)| !holds);
    wrong.map(|(_, words)| words).collect()
}

fn mounts(container: &Value, path: &str, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
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
        for field in ["subPath", "subPathExpr"] {
            let below = text(mount, &[field]);
            // Kubernetes names the list here, not the item.
            volumes::local_path(below, &format!("{path}.volumeMounts.{field}"), causes);
        }
        let below = text(mount, &["subPathExpr"]);
        if !below.is_empty() && !text(mount, &["subPath"]).is_empty() {
            causes.push(Cause::invalid(
                format!("{at}.subPathExpr"),
                &below.into(),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
}

fn resources(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for side in ["limits", "requests"] {
        for (name, value) in at(container, &["resources", side])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let field = format!("{path}.resources.{side}[{name}]");
            resource_name(name, &field, causes);
            quantity(value, &field, causes);
            if name.contains('/') {
                whole(value, &field, causes);
            }
            if side == "requests"
                && let Some(limit) = at(container, &["resources", "limits", name])
                && let (Some(request), Some(bound)) = (quantities::of(value), quantities::of(limit))
                && request > bound
            {
                causes.push(Cause::invalid(
                    format!("{path}.resources.requests"),
                    value,
                    &format!("must be less than or equal to {name} limit of {bound}"),
                ));
            }
        }
    }
}

fn resource_name(name: &str, path: &str, causes: &mut Vec<Cause>) {
    if name.contains('/') {
        if let Some(wrong) = names::qualified(name) {
            causes.push(Cause::invalid(path, &name.into(), &wrong));
        }
    } else if !STANDARD_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
        for wrong in [
            "must be a standard resource type or fully qualified",
            "must be a standard resource for containers",
        ] {
            causes.push(Cause::invalid(path, &name.into(), wrong));
        }
    }
}

/// A quantity of things that cannot be divided.
fn whole(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if quantities::of(value).is_some_and(|quantity| quantity.millis() % 1000 != 0) {
        causes.push(Cause::invalid(path, value, "must be an integer"));
    }
}

fn resize(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for policy in items(container, &["resizePolicy"]) {
        for (field, supported) in [
            ("resourceName", ["cpu", "memory"]),
            ("restartPolicy", ["NotRequired", "RestartContainer"]),
        ] {
            let value = text(policy, &[field]);
            if !supported.contains(&value) {
                causes.push(Cause::unsupported(
                    format!("{path}.resizePolicy"),
                    &value.into(),
                    &supported,
                ));
            }
        }
    }
}
