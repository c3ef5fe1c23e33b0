//! What may be in a Deployment or ReplicaSet.

use serde_json::Value;

use super::{not_negative, number_or_share, pod, selector};
use crate::names;
use crate::object::{self, at, blank, items, number, text};
use crate::status::Cause;

/// Expressions of a workload's selector, which are looked at for every pod.
const EXPRESSIONS_MAX: usize = 100;

pub(super) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec, field, "spec", causes);
    }
    selects_its_own(spec, causes);
    if let Some(old) = old
        && old["spec"]["selector"] != spec["selector"]
    {
        causes.push(Cause::invalid(
            "spec.selector",
            &spec["selector"],
            "field is immutable",
        ));
    }
    template(spec, causes);
    strategy(spec, causes);
    let ready = number(spec, &["minReadySeconds"]).unwrap_or(0);
    if let Some(deadline) =
        number(spec, &["progressDeadlineSeconds"]).filter(|deadline| *deadline <= ready)
    {
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &deadline.into(),
            "must be greater than minReadySeconds",
        ));
    }
}

/// The selector, which must select the pods of the template.
fn selects_its_own(spec: &Value, causes: &mut Vec<Cause>) {
    let wanted = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let mismatch = || {
        Cause::invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        )
    };
    if wanted.as_object().is_some_and(serde_json::Map::is_empty) {
        causes.push(Cause::invalid(
            "spec.selector",
            wanted,
            "empty selector is invalid for deployment",
        ));
        return;
    }
    if blank(Some(wanted)) {
        causes.push(Cause::required("spec.selector", ""));
        causes.push(mismatch());
        return;
    }
    let before = causes.len();
    selector(wanted, "spec.selector", causes);
    if items(wanted, &["matchExpressions"]).len() > EXPRESSIONS_MAX {
        causes.push(Cause {
            field: "spec.selector.matchExpressions".to_owned(),
            reason: "FieldValueTooMany",
            message: format!("Too many: must have at most {EXPRESSIONS_MAX} items"),
        });
    }
    if causes.len() > before {
        causes.push(Cause::invalid(
            "spec.selector",
            wanted,
            "invalid label selector",
        ));
    } else if !object::matches_labels(wanted, &spec["template"]) {
        causes.push(mismatch());
    }
}

fn template(spec: &Value, causes: &mut Vec<Cause>) {
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
    if number(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        causes.push(Cause::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
}

fn strategy(spec: &Value, causes: &mut Vec<Cause>) {
    let strategy = &spec["strategy"];
    let path = "spec.strategy";
    super::one_of(
        strategy,
        "type",
        &["Recreate", "RollingUpdate"],
        path,
        causes,
    );
    let Some(rolling) = at(strategy, &["rollingUpdate"]).filter(|rolling| rolling.is_object())
    else {
        return;
    };
    if text(strategy, &["type"]) == "Recreate" {
        causes.push(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
        return;
    }
    let path = "spec.strategy.rollingUpdate";
    number_or_share(rolling, "maxUnavailable", Some(100), path, causes);
    number_or_share(rolling, "maxSurge", None, path, causes);
    let is_none = |field: &str| rolling[field] == 0 || rolling[field] == "0%";
    if is_none("maxUnavailable") && is_none("maxSurge") {
        causes.push(Cause::invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}
