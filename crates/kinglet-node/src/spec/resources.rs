//! What a container may use, and who goes first when memory runs out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use kinglet_quantity::Quantity;

use crate::cgroup::Limits;

/// Processes and threads one container may have.
pub(crate) const PIDS_MAX: u64 = 4096;

/// Who is killed first when the machine's memory runs out, by a kubelet's rule: guaranteed pods last, those that asked for
/// nothing first, the others by how much of the machine they asked for.
pub(crate) fn oom_score_adj(qos_class: &str, container: &Container, node_memory_bytes: i64) -> i32 {
    const GUARANTEED: i32 = -997;
    const BEST_EFFORT: i32 = 1000;
    match qos_class {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => {
            let request = container
                .resources
                .as_ref()
                .and_then(|all| all.requests.as_ref())
                .and_then(|requests| requests.get("memory"))
                .and_then(|text| Quantity::parse(&text.0).ok())
                .map_or(0, Quantity::units);
            let share = i128::from(request) * 1000 / i128::from(node_memory_bytes.max(1));
            let share = i32::try_from(share).unwrap_or(BEST_EFFORT);
            (BEST_EFFORT - share).clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// What the container may use.
pub(crate) fn limits(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    let amount = |kind: Option<
        &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
                  name: &str| {
        kind.and_then(|amounts| amounts.get(name))
            .and_then(|text| Quantity::parse(&text.0).ok())
    };
    let requests = resources.and_then(|all| all.requests.as_ref());
    let limits = resources.and_then(|all| all.limits.as_ref());
    let cpu_limit = amount(limits, "cpu")
        .map(|cpu| cpu.millis().max(0).unsigned_abs())
        .filter(|milli| *milli > 0);
    Limits {
        // Without a request the limit counts as one.
        cpu_request_milli: amount(requests, "cpu")
            .map(|cpu| cpu.millis().max(0).unsigned_abs())
            .or(cpu_limit)
            .unwrap_or(0),
        cpu_limit_milli: cpu_limit,
        memory_limit_bytes: amount(limits, "memory")
            .map(|bytes| bytes.units().max(0).unsigned_abs())
            .filter(|bytes| *bytes > 0),
        pids_max: Some(PIDS_MAX),
        all_devices: container
            .security_context
            .as_ref()
            .and_then(|own| own.privileged)
            == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_of_a_container() {
        let container: Container = serde_json::from_value(
            json!({"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}}}),
        )
        .expect("container");
        let limits = limits(&container);
        assert_eq!(
            (
                limits.cpu_request_milli,
                limits.cpu_limit_milli,
                limits.memory_limit_bytes
            ),
            (500, Some(500), Some(128 << 20))
        );
    }

    #[test]
    fn who_is_killed_first() {
        let asks = |memory: &str| -> Container {
            serde_json::from_value(
                json!({"name": "c", "resources": {"requests": {"memory": memory}}}),
            )
            .expect("container")
        };
        let node = 4 << 30;
        for (class, container, expected) in [
            ("Guaranteed", asks("1Gi"), -997),
            ("BestEffort", Container::default(), 1000),
            ("Burstable", asks("1Gi"), 750),
            ("Burstable", asks("1Ki"), 999),
            ("Burstable", asks("4Gi"), 3),
        ] {
            assert_eq!(oom_score_adj(class, &container, node), expected, "{class}");
        }
    }
}
