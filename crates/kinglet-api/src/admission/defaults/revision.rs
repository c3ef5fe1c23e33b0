//! Defaults of a Revision's spec: limits of time, names, resources, probes, mounts, security.

use kinglet_quantity::{Quantity, pod};
use serde_json::{Value, json};

use super::set_default;
use crate::admission::look;
use crate::config::{Configs, Defaults, Features, SecurePodDefaults};
use crate::names;

/// Defaults of a Revision's spec. `parent` is the metadata that name templates see.
pub(super) fn revision_spec(spec: &mut Value, parent: &Value, creating: bool, configs: &Configs) {
    let Configs {
        defaults, features, ..
    } = configs;
    let nonzero = |spec: &Value, field: &str| look::number(spec, field).filter(|value| *value != 0);
    let timeout = nonzero(spec, "timeoutSeconds").unwrap_or(defaults.revision_timeout_seconds);
    spec["timeoutSeconds"] = json!(timeout);
    let shorter = |seconds: i64| seconds != 0 && seconds < timeout;
    if shorter(defaults.revision_idle_timeout_seconds) {
        set_default(
            spec,
            "idleTimeoutSeconds",
            json!(defaults.revision_idle_timeout_seconds),
        );
    }
    if shorter(defaults.revision_response_start_timeout_seconds) {
        set_default(
            spec,
            "responseStartTimeoutSeconds",
            json!(defaults.revision_response_start_timeout_seconds),
        );
    }
    set_default(
        spec,
        "containerConcurrency",
        json!(defaults.container_concurrency),
    );
    container_names(spec, parent, defaults);
    if creating && let Some(links) = defaults.enable_service_links {
        set_default(spec, "enableServiceLinks", json!(links));
    }
    let writable = writable_volumes(spec);
    let pod_security = look::at(spec, "securityContext").clone();
    for (list, init) in [("containers", false), ("initContainers", true)] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        let alone = containers.len() == 1;
        for container in containers {
            if !init {
                resources(container, defaults);
                let serves = alone || !look::list(container, "ports").is_empty();
                probes(container, serves);
            }
            mounts(container, &writable);
            secure(container, &pod_security, features);
            if let Some(container) = container.as_object_mut() {
                pod::fill_ports(container);
            }
        }
    }
}

fn container_names(spec: &mut Value, parent: &Value, defaults: &Defaults) {
    let mut taken: Vec<String> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| look::list(spec, list))
        .map(|container| look::text(container, "name").to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let data = json!({
        "Name": look::text(parent, "name"), "GenerateName": look::text(parent, "generateName"),
        "Namespace": look::text(parent, "namespace"),
        "Labels": look::map(parent, "labels"), "Annotations": look::map(parent, "annotations"),
    });
    for (list, template, fallback) in [
        (
            "initContainers",
            &defaults.init_container_name_template,
            "init-container",
        ),
        (
            "containers",
            &defaults.container_name_template,
            "user-container",
        ),
    ] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        let several = containers.len() > 1;
        let mut next = 0;
        for container in containers
            .iter_mut()
            .filter(|container| look::text(container, "name").is_empty())
        {
            let base = template
                .render(&data)
                .unwrap_or_else(|_| fallback.to_owned());
            let mut name = base.clone();
            if several || taken.contains(&name) {
                loop {
                    name = names::child(&base, &format!("-{next}"));
                    next += 1;
                    if !taken.contains(&name) {
                        break;
                    }
                }
            }
            taken.push(name.clone());
            container["name"] = json!(name);
        }
    }
}

fn resources(container: &mut Value, defaults: &Defaults) {
    let d = defaults;
    let rows: [(&str, &str, Option<Quantity>); 6] = [
        ("requests", "cpu", d.revision_cpu_request),
        ("requests", "memory", d.revision_memory_request),
        (
            "requests",
            "ephemeral-storage",
            d.revision_ephemeral_storage_request,
        ),
        ("limits", "cpu", d.revision_cpu_limit),
        ("limits", "memory", d.revision_memory_limit),
        (
            "limits",
            "ephemeral-storage",
            d.revision_ephemeral_storage_limit,
        ),
    ];
    set_default(container, "resources", json!({}));
    for (side, resource, quantity) in rows {
        let Some(quantity) = quantity else { continue };
        let resources = &mut container["resources"];
        set_default(resources, side, json!({}));
        set_default(&mut resources[side], resource, json!(quantity.to_string()));
    }
}

fn probes(container: &mut Value, serves: bool) {
    if serves {
        set_default(container, "readinessProbe", json!({}));
        let probe = &mut container["readinessProbe"];
        if !["exec", "httpGet", "tcpSocket", "grpc"]
            .iter()
            .any(|handler| look::has(probe, handler))
        {
            probe["tcpSocket"] = json!({"port": 0});
        }
    }
    let Some(probe) = container
        .get_mut("readinessProbe")
        .filter(|probe| !probe.is_null())
    else {
        return;
    };
    let paced = look::number(probe, "periodSeconds").unwrap_or_default() != 0;
    let mut or = |field: &str, value: u64| {
        if look::number(probe, field).unwrap_or_default() == 0 {
            probe[field] = json!(value);
        }
    };
    or("successThreshold", pod::PROBE_SUCCESSES.into());
    // A probe without a period is an aggressive one and gets no further numbers (spec/serving.md 6.3.3).
    if paced {
        or("failureThreshold", pod::PROBE_FAILURES.into());
        or("timeoutSeconds", pod::PROBE_TIMEOUT.as_secs());
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            pod::fill_grpc(probe);
        }
    }
}

/// Returns the names of writable volumes.
fn writable_volumes(spec: &Value) -> Vec<String> {
    look::list(spec, "volumes")
        .iter()
        .filter(|volume| {
            ["emptyDir", "persistentVolumeClaim", "ephemeral"]
                .iter()
                .any(|source| look::has(volume, source))
        })
        .map(|volume| look::text(volume, "name").to_owned())
        .collect()
}

fn mounts(container: &mut Value, writable: &[String]) {
    for mount in container
        .get_mut("volumeMounts")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if !writable
            .iter()
            .any(|name| name == look::text(mount, "name"))
        {
            mount["readOnly"] = json!(true);
        }
    }
}

fn secure(container: &mut Value, pod: &Value, features: &Features) {
    let level = features.secure_pod_defaults;
    if level == SecurePodDefaults::Disabled {
        return;
    }
    let privileged_port = look::list(container, "ports")
        .iter()
        .any(|port| look::number(port, "containerPort").is_some_and(|port| port < 1024));
    set_default(container, "securityContext", json!({}));
    let context = &mut container["securityContext"];
    set_default(context, "allowPrivilegeEscalation", json!(false));
    if look::text(look::at(pod, "seccompProfile"), "type").is_empty() {
        set_default(context, "seccompProfile", json!({}));
        if look::text(&context["seccompProfile"], "type").is_empty() {
            context["seccompProfile"]["type"] = json!("RuntimeDefault");
        }
    }
    if !look::has(context, "capabilities") {
        let mut capabilities = json!({"drop": ["ALL"]});
        if privileged_port {
            capabilities["add"] = json!(["NET_BIND_SERVICE"]);
        }
        context["capabilities"] = capabilities;
    }
    let unset = !look::has(context, "runAsNonRoot") && !look::has(pod, "runAsNonRoot");
    if level == SecurePodDefaults::Enabled && unset {
        context["runAsNonRoot"] = json!(true);
    }
}
