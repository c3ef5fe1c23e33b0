//! Defaults of a container: image, resources, ports, environment, probes, hooks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fields::{Fields, blank, default, default_number, default_text, each, fields, quantity};

/// File into which a container writes why it ended, unless its spec names another one.
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// Time between two attempts of a probe.
pub const PROBE_PERIOD: Duration = Duration::from_secs(10);
/// Time that one attempt of a probe may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Successes in a row that make a probe succeed.
pub const PROBE_SUCCESSES: u32 = 1;
/// Failures in a row that make a probe fail.
pub const PROBE_FAILURES: u32 = 3;

pub(super) fn fill_container(container: &mut Fields) {
    default_text(
        container,
        "terminationMessagePath",
        TERMINATION_MESSAGE_PATH,
    );
    default_text(container, "terminationMessagePolicy", "File");
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    default_text(container, "imagePullPolicy", pull_policy(&image));
    default(container, "resources", json!({}));
    if let Some(resources) = container.get_mut("resources") {
        canonical(resources);
    }
    fill_ports(container);
    for variable in each(container, "env") {
        if variable
            .get("value")
            .is_some_and(|value| blank(Some(value)))
        {
            variable.remove("value");
        }
        if let Some(reference) = variable
            .get_mut("valueFrom")
            .and_then(|from| from.get_mut("fieldRef"))
        {
            default_text(fields(reference), "apiVersion", "v1");
        }
    }
    for key in ["env", "envFrom", "ports", "volumeMounts", "command", "args"] {
        if container.get(key).is_some_and(|value| blank(Some(value))) {
            container.remove(key);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) {
            fill_probe(probe);
        }
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(key).and_then(Value::as_object_mut) {
                fill_handler(hook);
            }
        }
    }
}

fn fill_probe(probe: &mut Fields) {
    default_number(probe, "timeoutSeconds", PROBE_TIMEOUT.as_secs());
    default_number(probe, "periodSeconds", PROBE_PERIOD.as_secs());
    default_number(probe, "successThreshold", PROBE_SUCCESSES);
    default_number(probe, "failureThreshold", PROBE_FAILURES);
    if probe
        .get("initialDelaySeconds")
        .is_some_and(|delay| *delay == 0)
    {
        probe.remove("initialDelaySeconds");
    }
    fill_handler(probe);
}

fn fill_handler(owner: &mut Fields) {
    if let Some(http) = owner.get_mut("httpGet").and_then(Value::as_object_mut) {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
    }
    fill_grpc(owner);
}

/// Fills in the gRPC action of a probe. The empty service asks about the server as a whole.
pub fn fill_grpc(probe: &mut Fields) {
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        default(grpc, "service", "");
    }
}

/// Fills in the ports of a container, or of a subset of Endpoints.
pub fn fill_ports(owner: &mut Fields) {
    for port in each(owner, "ports") {
        default_text(port, "protocol", "TCP");
    }
}

/// Returns the pull policy of a container that names none: `Always` if the image's tag is or implies `latest`.
pub fn pull_policy(image: &str) -> &'static str {
    if is_moving(image) {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// Returns whether an image's tag may point at another image tomorrow: `latest`, written or implied; a digest never does.
fn is_moving(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.rsplit_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

/// Writes requests and limits in their canonical form, as Go's decoding does.
fn canonical(resources: &mut Value) {
    for side in ["requests", "limits"] {
        let Some(list) = resources.get_mut(side).and_then(Value::as_object_mut) else {
            continue;
        };
        for value in list.values_mut() {
            if let Some(quantity) = quantity(value) {
                let shown = quantity.to_string();
                if *value != shown {
                    *value = shown.into();
                }
            }
        }
    }
}
