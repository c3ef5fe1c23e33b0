//! The Pod that a dry run of a Service tries: upstream asks the API server, whose rules the caller brings along.

use serde_json::{Value, json};

use super::look;

/// The Pod spec of a Revision as far as its user wrote it: no queue beside it.
pub(super) fn of(spec: &Value) -> Value {
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
