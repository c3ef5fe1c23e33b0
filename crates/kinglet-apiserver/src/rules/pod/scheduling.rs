//! What a pod may say about where it is to run.

use std::collections::HashSet;

use serde_json::Value;

use crate::names;
use crate::object::{at, items, number, text};
use crate::rules::one_of;
use crate::status::Cause;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NODE_OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    tolerations(spec, path, causes);
    gates(spec, path, causes);
    for (index, constraint) in items(spec, &["topologySpreadConstraints"])
        .iter()
        .enumerate()
    {
        let at = format!("{path}.topologySpreadConstraints[{index}]");
        spread(constraint, &at, causes);
    }
    let policies = ["PreemptLowerPriority", "Never"];
    one_of(spec, "preemptionPolicy", &policies, path, causes);
    node_affinity(spec, path, causes);
}

pub(super) fn tolerations(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, toleration) in items(spec, &["tolerations"]).iter().enumerate() {
        tolerate(toleration, &format!("{path}.tolerations[{index}]"), causes);
    }
}

fn tolerate(toleration: &Value, path: &str, causes: &mut Vec<Cause>) {
    let field = |name: &str| text(toleration, &[name]);
    let (key, operator) = (field("key"), field("operator"));
    if !key.is_empty()
        && let Some(wrong) = names::qualified(key)
    {
        causes.push(Cause::invalid(format!("{path}.key"), &key.into(), &wrong));
    }
    if key.is_empty() && operator != "Exists" {
        causes.push(Cause::invalid(
            format!("{path}.operator"),
            &operator.into(),
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    if number(toleration, &["tolerationSeconds"]).is_some() && field("effect") != "NoExecute" {
        causes.push(Cause::invalid(
            format!("{path}.effect"),
            &field("effect").into(),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    match operator {
        "" | "Equal" => {
            if let Some(wrong) = names::label_value(field("value")) {
                causes.push(Cause::invalid(
                    format!("{path}.operator"),
                    &field("value").into(),
                    &wrong,
                ));
            }
        }
        "Exists" => {
            if !field("value").is_empty() {
                causes.push(Cause::invalid(
                    format!("{path}.operator"),
                    &field("value").into(),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
        }
        _ => one_of(toleration, "operator", &["Equal", "Exists"], path, causes),
    }
    one_of(toleration, "effect", &EFFECTS, path, causes);
}

fn gates(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for (index, gate) in items(spec, &["schedulingGates"]).iter().enumerate() {
        let at = format!("{path}.schedulingGates[{index}]");
        let name = text(gate, &["name"]);
        if let Some(wrong) = names::qualified(name) {
            causes.push(Cause::invalid(at.as_str(), &name.into(), &wrong));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(at, &name.into()));
        }
    }
    for (index, gate) in items(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        if let Some(wrong) = names::qualified(kind) {
            causes.push(Cause::invalid(
                format!("{path}.readinessGates[{index}].conditionType"),
                &kind.into(),
                &wrong,
            ));
        }
    }
}

fn spread(constraint: &Value, path: &str, causes: &mut Vec<Cause>) {
    if number(constraint, &["maxSkew"]).is_none_or(|skew| skew <= 0) {
        causes.push(Cause::invalid(
            format!("{path}.maxSkew"),
            &constraint["maxSkew"],
            "must be greater than zero",
        ));
    }
    if text(constraint, &["topologyKey"]).is_empty() {
        causes.push(Cause::required(
            format!("{path}.topologyKey"),
            "can not be empty",
        ));
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    let action = text(constraint, &["whenUnsatisfiable"]);
    if !actions.contains(&action) {
        causes.push(Cause::unsupported(
            format!("{path}.whenUnsatisfiable"),
            &action.into(),
            &actions,
        ));
    }
}

fn node_affinity(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let Some(required) =
        at(spec, &["affinity", "nodeAffinity", REQUIRED]).filter(|r| r.is_object())
    else {
        return;
    };
    let path = format!("{path}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let terms = items(required, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        causes.push(Cause::required(
            path.as_str(),
            "must have at least one node selector term",
        ));
    }
    for (index, term) in terms.iter().enumerate() {
        for (number, expression) in items(term, &["matchExpressions"]).iter().enumerate() {
            let operator = text(expression, &["operator"]);
            if !NODE_OPERATORS.contains(&operator) {
                causes.push(Cause::invalid(
                    format!("{path}[{index}].matchExpressions[{number}].operator"),
                    &operator.into(),
                    "not a valid selector operator",
                ));
            }
        }
    }
}
