//! What Kubernetes itself would say to a Pod: the rules that a first-time user meets.
//!
//! Used for dry runs of Services, where upstream asks the API server.

use serde_json::{Value, json};

use crate::formats;
use kinglet_quantity::Quantity;

use super::look;

/// The Pod spec of a Revision as far as its user wrote it: no queue beside it.
pub(super) fn user_pod(spec: &Value) -> Value {
    let mut pod = spec.clone();
    let Some(map) = pod.as_object_mut() else {
        return pod;
    };
    for own in [
        "containerConcurrency",
        "timeoutSeconds",
        "responseStartTimeoutSeconds",
        "idleTimeoutSeconds",
    ] {
        map.remove(own);
    }
    let containers = map.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let port = look::list(container, "ports")
            .first()
            .and_then(|port| look::number(port, "containerPort"));
        let port = port.filter(|port| *port != 0).unwrap_or(8080);
        if let Some(container) = container.as_object_mut() {
            // The queue probes readiness itself.
            container.remove("readinessProbe");
            container.insert(
                "ports".to_owned(),
                json!([{"name": "user-port", "containerPort": port, "protocol": "TCP"}]),
            );
        }
        if let Some(liveness) = container.get_mut("livenessProbe") {
            for handler in ["httpGet", "tcpSocket", "grpc"] {
                if look::has(liveness, handler) {
                    liveness[handler]["port"] = json!(port);
                }
            }
        }
    }
    pod
}

/// What is wrong with a Pod's spec, one `field: why` each.
pub(super) fn check(spec: &Value) -> Vec<String> {
    let mut wrong = Wrong(Vec::new());
    let volumes = volumes(spec, &mut wrong);
    if look::list(spec, "containers").is_empty() {
        wrong.required("spec.containers");
    }
    let mut names: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in look::list(spec, list).iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            let name = look::text(container, "name");
            if names.contains(&name) {
                wrong
                    .0
                    .push(format!("{path}.name: Duplicate value: {name:?}"));
            }
            names.push(name);
            check_container(container, &path, &volumes, &mut wrong);
        }
    }
    wrong.0
}

struct Wrong(Vec<String>);

impl Wrong {
    fn required(&mut self, path: &str) {
        self.0.push(format!("{path}: Required value"));
    }

    fn invalid(&mut self, path: &str, value: impl std::fmt::Display, error: &str) {
        self.0
            .push(format!("{path}: Invalid value: {value}: {error}"));
    }

    fn unsupported(&mut self, path: &str, value: &str, supported: &[&str]) {
        let list = supported
            .iter()
            .map(|value| format!("{value:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        self.0.push(format!(
            "{path}: Unsupported value: {value:?}: supported values: {list}"
        ));
    }

    fn label(&mut self, path: &str, value: &str) {
        if value.is_empty() {
            return self.required(path);
        }
        for error in formats::dns_1123_label(value) {
            self.invalid(path, crate::go::quote(value), &error);
        }
    }
}

/// Names of the volumes that are fit to be mounted.
fn volumes<'a>(spec: &'a Value, wrong: &mut Wrong) -> Vec<&'a str> {
    let mut good = Vec::new();
    for (i, volume) in look::list(spec, "volumes").iter().enumerate() {
        let path = format!("spec.volumes[{i}]");
        let before = wrong.0.len();
        let name = look::text(volume, "name");
        wrong.label(&format!("{path}.name"), name);
        if good.contains(&name) {
            wrong
                .0
                .push(format!("{path}.name: Duplicate value: {name:?}"));
        }
        for (source, field) in [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
            ("hostPath", "path"),
        ] {
            if look::has(volume, source) && look::text(look::at(volume, source), field).is_empty() {
                wrong.required(&format!("{path}.{source}.{field}"));
            }
        }
        if wrong.0.len() == before {
            good.push(name);
        }
    }
    good
}

fn check_container(container: &Value, path: &str, volumes: &[&str], wrong: &mut Wrong) {
    wrong.label(&format!("{path}.name"), look::text(container, "name"));
    if look::text(container, "image").is_empty() {
        wrong.required(&format!("{path}.image"));
    }
    for (probe, success_is_one) in [
        ("livenessProbe", true),
        ("readinessProbe", false),
        ("startupProbe", true),
    ] {
        check_probe(
            look::at(container, probe),
            &format!("{path}.{probe}"),
            success_is_one,
            wrong,
        );
    }
    check_ports(container, path, wrong);
    check_environment(container, path, wrong);
    let mut mounted: Vec<&str> = Vec::new();
    for (i, mount) in look::list(container, "volumeMounts").iter().enumerate() {
        let at = format!("{path}.volumeMounts[{i}]");
        let name = look::text(mount, "name");
        if name.is_empty() {
            wrong.required(&format!("{at}.name"));
        } else if !volumes.contains(&name) {
            wrong.0.push(format!("{at}.name: Not found: {name:?}"));
        }
        let mount_path = look::text(mount, "mountPath");
        if mount_path.is_empty() {
            wrong.required(&format!("{at}.mountPath"));
        } else if mounted.contains(&mount_path) {
            wrong.invalid(
                &format!("{at}.mountPath"),
                crate::go::quote(mount_path),
                "must be unique",
            );
        }
        mounted.push(mount_path);
    }
    let policy = look::text(container, "imagePullPolicy");
    if !["", "Always", "IfNotPresent", "Never"].contains(&policy) {
        wrong.unsupported(
            &format!("{path}.imagePullPolicy"),
            policy,
            &["Always", "IfNotPresent", "Never"],
        );
    }
    check_resources(
        look::at(container, "resources"),
        &format!("{path}.resources"),
        wrong,
    );
}

fn check_probe(probe: &Value, path: &str, success_is_one: bool, wrong: &mut Wrong) {
    if probe.is_null() {
        return;
    }
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        let port = look::at(look::at(probe, handler), "port");
        let at = format!("{path}.{handler}.port");
        match (look::has(probe, handler), port.as_i64(), port.as_str()) {
            (false, ..) => {}
            (true, Some(number), _) if !(1..=65535).contains(&number) => {
                wrong.invalid(&at, number, "must be between 1 and 65535, inclusive");
            }
            (true, _, Some(name)) => {
                for error in formats::port_name(name) {
                    wrong.invalid(&at, crate::go::quote(name), &error);
                }
            }
            (true, None, None) => wrong.required(&at),
            (true, Some(_), None) => {}
        }
    }
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(value) = look::number(probe, field).filter(|value| *value < 0) {
            wrong.invalid(
                &format!("{path}.{field}"),
                value,
                "must be greater than or equal to 0",
            );
        }
    }
    if let Some(value) = look::number(probe, "successThreshold")
        .filter(|value| success_is_one && ![0, 1].contains(value))
    {
        wrong.invalid(&format!("{path}.successThreshold"), value, "must be 1");
    }
}

fn check_ports(container: &Value, path: &str, wrong: &mut Wrong) {
    for (i, port) in look::list(container, "ports").iter().enumerate() {
        let number = look::number(port, "containerPort").unwrap_or_default();
        let at = format!("{path}.ports[{i}]");
        if number == 0 {
            wrong.required(&format!("{at}.containerPort"));
        } else if !(1..=65535).contains(&number) {
            wrong.invalid(
                &format!("{at}.containerPort"),
                number,
                "must be between 1 and 65535, inclusive",
            );
        }
        let name = look::text(port, "name");
        if !name.is_empty() {
            for error in formats::port_name(name) {
                wrong.invalid(&format!("{at}.name"), crate::go::quote(name), &error);
            }
        }
        let protocol = look::text(port, "protocol");
        if !["", "TCP", "UDP", "SCTP"].contains(&protocol) {
            wrong.unsupported(&format!("{at}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn check_environment(container: &Value, path: &str, wrong: &mut Wrong) {
    const SOURCES: [&str; 4] = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
    ];
    for (i, env) in look::list(container, "env").iter().enumerate() {
        let at = format!("{path}.env[{i}]");
        if look::text(env, "name").is_empty() {
            wrong.required(&format!("{at}.name"));
        }
        if !look::has(env, "valueFrom") {
            continue;
        }
        let from = look::at(env, "valueFrom");
        let at = format!("{at}.valueFrom");
        let given = SOURCES
            .iter()
            .filter(|source| look::has(from, source))
            .count();
        if given == 0 {
            wrong.invalid(&at, "\"\"", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
        } else if !look::text(env, "value").is_empty() {
            wrong.invalid(
                &at,
                "\"\"",
                "may not be specified when `value` is not empty",
            );
        } else if given > 1 {
            wrong.invalid(
                &at,
                "\"\"",
                "may not have more than one field specified at a time",
            );
        }
    }
}

fn check_resources(resources: &Value, path: &str, wrong: &mut Wrong) {
    let limits = look::map(resources, "limits");
    let requests = look::map(resources, "requests");
    for (side, map) in [("limits", &limits), ("requests", &requests)] {
        for (resource, text) in map {
            let at = format!("{path}.{side}[{resource}]");
            match Quantity::parse(text) {
                Ok(quantity) if quantity.is_negative() => {
                    wrong.invalid(
                        &at,
                        crate::go::quote(text),
                        "must be greater than or equal to 0",
                    );
                }
                Ok(_) => {}
                Err(error) => wrong.invalid(&at, crate::go::quote(text), error),
            }
        }
    }
    for (resource, text) in &requests {
        let Some(limit) = limits.get(resource) else {
            continue;
        };
        if let (Ok(request), Ok(most)) = (Quantity::parse(text), Quantity::parse(limit))
            && request > most
        {
            let error = format!("must be less than or equal to {resource} limit of {limit}");
            wrong.invalid(&format!("{path}.requests"), crate::go::quote(text), &error);
        }
    }
}
