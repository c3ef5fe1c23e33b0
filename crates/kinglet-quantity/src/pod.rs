//! Pods as every part of Kinglet takes them: Kubernetes' defaults of a pod spec, and when a Pod is ready.
//!
//! The API server fills in every pod spec with these functions, Knative's controllers the one that they write (so that
//! what is written is what is stored), and the node assumes the same numbers where a spec is silent.

mod container;
#[cfg(test)]
mod tests;
mod volume;

use serde_json::{Value, json};

pub use container::{
    PROBE_FAILURES, PROBE_PERIOD, PROBE_SUCCESSES, PROBE_TIMEOUT, TERMINATION_MESSAGE_PATH,
    fill_grpc, fill_ports, pull_policy,
};
pub use volume::{FILE_MODE, TOKEN_SECONDS};

use crate::fields::{Fields, blank, child, default, default_text, each};
use container::fill_container;
use volume::fill_volume;

/// Seconds between the order to end and the kill, unless the pod's spec gives another number.
pub const TERMINATION_GRACE_SECONDS: i64 = 30;

/// Kernel parameters of a pod's own namespaces that a Pod may set (a kubelet's safe set).
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Returns whether a Pod takes requests, given type and status of its conditions.
pub fn is_ready<'a>(conditions: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
    conditions
        .into_iter()
        .find(|(kind, _)| *kind == "Ready")
        .is_some_and(|(_, status)| status == "True")
}

/// Fills in the spec of a Pod. Doing it twice changes nothing.
pub fn fill(spec: &mut Fields) {
    default(spec, "enableServiceLinks", true);
    fill_spec(spec);
    // Kubernetes makes a negative period of a Pod one second; templates keep theirs.
    if let Some(grace) = spec.get_mut("terminationGracePeriodSeconds")
        && grace.as_i64().is_some_and(|seconds| seconds < 0)
    {
        *grace = 1.into();
    }
    requests_from_limits(spec);
}

/// Fills in the spec of a pod or of a template. Doing it twice changes nothing.
pub fn fill_spec(spec: &mut Fields) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(
        spec,
        "terminationGracePeriodSeconds",
        TERMINATION_GRACE_SECONDS,
    );
    if let Some(account) = spec
        .get("serviceAccountName")
        .filter(|name| !blank(Some(name)))
        .cloned()
    {
        spec.insert("serviceAccount".to_owned(), account);
    } else if let Some(account) = spec
        .get("serviceAccount")
        .filter(|name| !blank(Some(name)))
        .cloned()
    {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    for key in [
        "nodeSelector",
        "imagePullSecrets",
        "volumes",
        "tolerations",
        "initContainers",
        "hostAliases",
    ] {
        if spec.get(key).is_some_and(|value| blank(Some(value))) {
            spec.remove(key);
        }
    }
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec.get(key).is_some_and(|value| value == false) {
            spec.remove(key);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in each(spec, list) {
            fill_container(item);
        }
    }
    for item in each(spec, "volumes") {
        fill_volume(item);
    }
}

/// In a pod, a limit without a request is also the request.
fn requests_from_limits(spec: &mut Fields) {
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            let Some(limits) = container
                .get("resources")
                .and_then(|r| r.get("limits"))
                .and_then(Value::as_object)
                .cloned()
            else {
                continue;
            };
            let requests = child(child(container, "resources"), "requests");
            for (name, value) in limits {
                default(requests, &name, value);
            }
        }
    }
}
