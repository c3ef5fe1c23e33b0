//! What may be in quotas, ranges, budgets, priorities and leases.

use std::collections::HashSet;

use serde_json::Value;

use super::{not_negative, number_or_share, one_of, quantity, selector};
use crate::builtin::quantity as quantities;
use crate::object::{at, items, number, text};
use crate::status::Cause;

/// Resources that a quota can count without a domain in front.
const QUOTA_RESOURCES: [&str; 22] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
    "limits.storage",
    "bindings",
];
/// Those of which there are whole ones only.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Highest priority that users may give.
const PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PRIORITIES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

pub(super) fn quota(object: &Value, causes: &mut Vec<Cause>) {
    for (name, value) in at(object, &["spec", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("spec.hard[{name}]");
        let is_pages = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
        if !name.contains('/') && !QUOTA_RESOURCES.contains(&name.as_str()) && !is_pages {
            for wrong in [
                "must be a standard resource type or fully qualified",
                "must be a standard resource for quota",
            ] {
                causes.push(Cause::invalid(path.as_str(), &name.as_str().into(), wrong));
            }
        }
        quantity(value, &path, causes);
        let is_counted = COUNTED.contains(&name.as_str()) || name.starts_with("count/");
        if let Some(amount) = quantities::of(value)
            && is_counted
            && amount.millis() % 1000 != 0
        {
            causes.push(Cause::invalid(
                path,
                &amount.to_string().into(),
                "must be an integer",
            ));
        }
    }
}

/// Bounds of a range must leave something between them.
pub(super) fn limit_range(object: &Value, causes: &mut Vec<Cause>) {
    /// The smaller, the larger, where Kubernetes reports it, and what it calls them.
    const ORDER: [(&str, &str, &str, &str, &str); 6] = [
        ("min", "max", "min", "min", "max"),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            "min",
            "default request",
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            "default request",
            "max",
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request",
            "default limit",
        ),
        ("min", "default", "default", "min", "default"),
        ("default", "max", "default", "default", "max"),
    ];
    let mut seen = HashSet::new();
    for (index, limit) in items(object, &["spec", "limits"]).iter().enumerate() {
        let path = format!("spec.limits[{index}]");
        let kind = text(limit, &["type"]);
        if !seen.insert(kind) {
            causes.push(Cause::duplicate(format!("{path}.type"), &kind.into()));
        }
        for (small, large, reported, small_name, large_name) in ORDER {
            for (name, value) in limit
                .get(small)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let Some(bound) = at(limit, &[large, name]) else {
                    continue;
                };
                if let (Some(less), Some(more)) = (quantities::of(value), quantities::of(bound))
                    && less > more
                {
                    causes.push(Cause::invalid(
                        format!("{path}.{reported}[{name}]"),
                        &limit[reported][name],
                        &format!(
                            "{small_name} value {less} is greater than {large_name} value {more}"
                        ),
                    ));
                }
            }
        }
    }
}

pub(super) fn disruption_budget(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let given = |field: &str| !spec[field].is_null();
    if given("minAvailable") && given("maxUnavailable") {
        causes.push(Cause::invalid(
            "spec",
            spec,
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        number_or_share(spec, field, Some(100), "spec", causes);
    }
    selector(&spec["selector"], "spec.selector", causes);
    one_of(
        spec,
        "unhealthyPodEvictionPolicy",
        &["AlwaysAllow", "IfHealthyBudget"],
        "spec",
        causes,
    );
}

pub(super) fn priority_class(object: &Value, causes: &mut Vec<Cause>) {
    let name = text(object, &["metadata", "name"]);
    if name.starts_with("system-") {
        if !SYSTEM_PRIORITIES.contains(&name) {
            causes.push(Cause::forbidden(
                "metadata.name",
                &format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
                ),
            ));
        }
    } else if number(object, &["value"]).is_some_and(|value| value > PRIORITY_MAX) {
        causes.push(Cause::forbidden(
            "value",
            &format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}"),
        ));
    }
    let policy = text(object, &["preemptionPolicy"]);
    let policies = ["PreemptLowerPriority", "Never"];
    if !policy.is_empty() && !policies.contains(&policy) {
        causes.push(Cause::unsupported(
            "preemptionPolicy",
            &policy.into(),
            &policies,
        ));
    }
}

pub(super) fn lease(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if number(spec, &["leaseDurationSeconds"]).is_some_and(|seconds| seconds <= 0) {
        causes.push(Cause::invalid(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    not_negative(spec, "leaseTransitions", "spec", causes);
}
