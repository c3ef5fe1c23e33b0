//! What may be in a Deployment or ReplicaSet.

use serde_json::Value;

use super::pod;
use crate::names;
use crate::object::{self, at, blank, items, number, text};
use crate::status::Cause;

/// Expressions of a workload's selector, which are looked at for every pod.
const EXPRESSIONS_MAX: usize = 100;

pub(super) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if let Some(replicas) = number(spec, &["replicas"]).filter(|replicas| *replicas < 0) {
        causes.push(Cause::invalid(
            "spec.replicas",
            &replicas.into(),
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    if blank(Some(selector)) {
        causes.push(Cause::required("spec.selector", ""));
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &spec["template"]["metadata"]["labels"],
            "`selector` does not match template `labels`",
        ));
    } else {
        names::check_labels(
            selector.get("matchLabels"),
            "spec.selector.matchLabels",
            causes,
        );
        if items(selector, &["matchExpressions"]).len() > EXPRESSIONS_MAX {
            causes.push(Cause {
                field: "spec.selector.matchExpressions".to_owned(),
                reason: "FieldValueTooMany",
                message: format!("Too many: must have at most {EXPRESSIONS_MAX} items"),
            });
        }
        if !object::matches_labels(selector, &spec["template"]) {
            causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                &spec["template"]["metadata"]
                    .get("labels")
                    .cloned()
                    .unwrap_or(Value::Null),
                "`selector` does not match template `labels`",
            ));
        }
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid(
            "spec.selector",
            selector,
            "field is immutable",
        ));
    }
    names::check_labels(
        spec["template"]["metadata"].get("labels"),
        "spec.template.metadata.labels",
        causes,
    );
    names::check_annotations(
        spec["template"]["metadata"].get("annotations"),
        "spec.template.metadata.annotations",
        causes,
    );
    pod::spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    if policy != "Always" {
        causes.push(Cause::unsupported(
            "spec.template.spec.restartPolicy",
            &policy.into(),
            &["Always"],
        ));
    }
    let strategy = text(spec, &["strategy", "type"]);
    if !matches!(strategy, "" | "RollingUpdate" | "Recreate") {
        causes.push(Cause::unsupported(
            "spec.strategy.type",
            &strategy.into(),
            &["Recreate", "RollingUpdate"],
        ));
    }
    if strategy == "Recreate" && !blank(at(spec, &["strategy", "rollingUpdate"])) {
        causes.push(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
}
