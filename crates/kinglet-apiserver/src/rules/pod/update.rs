//! What may change in a running pod.

use serde_json::Value;

use super::scheduling;
use crate::object::{at, items, number, text};
use crate::status::Cause;

/// A running pod's specification is as good as fixed.
pub(super) fn update(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let mut allowed = pod["spec"].clone();
    let before = &old["spec"];
    if let (Some(new), Some(old)) = (allowed.as_object_mut(), before.as_object()) {
        for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            match old.get(key) {
                Some(value) => new.insert(key.to_owned(), value.clone()),
                None => new.remove(key),
            };
        }
        for list in ["containers", "initContainers"] {
            let olds = old.get(list).and_then(Value::as_array);
            if let (Some(news), Some(olds)) =
                (new.get_mut(list).and_then(Value::as_array_mut), olds)
            {
                for (new, old) in news.iter_mut().zip(olds) {
                    if let (Some(new), Some(image)) = (new.as_object_mut(), old.get("image")) {
                        new.insert("image".to_owned(), image.clone());
                    }
                }
            }
        }
    }
    deadline(pod, old, causes);
    gates(pod, old, causes);
    tolerations(pod, old, causes);
    if allowed != *before {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    for (index, container) in items(pod, &["spec", "containers"]).iter().enumerate() {
        if text(container, &["image"]).is_empty() {
            causes.push(Cause::required(
                format!("spec.containers[{index}].image"),
                "",
            ));
        }
    }
}

/// It may come, and come nearer.
fn deadline(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIELD: [&str; 2] = ["spec", "activeDeadlineSeconds"];
    let wrong = match (number(old, &FIELD), number(pod, &FIELD)) {
        (_, Some(new)) if !(1..=i64::from(i32::MAX)).contains(&new) => {
            "must be between 1 and 2147483647, inclusive"
        }
        (Some(old), Some(new)) if new > old => "must be less than or equal to previous value",
        (Some(_), None) => "must not update from a positive integer to nil value",
        _ => return,
    };
    let value = at(pod, &FIELD).unwrap_or(&Value::Null);
    causes.push(Cause::invalid(FIELD.join("."), value, wrong));
}

/// They may only go.
fn gates(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIELD: [&str; 2] = ["spec", "schedulingGates"];
    let known = items(old, &FIELD);
    for (index, gate) in items(pod, &FIELD).iter().enumerate() {
        if !known.contains(gate) {
            let name = text(gate, &["name"]);
            causes.push(Cause::forbidden(
                format!("spec.schedulingGates[{index}].name"),
                &format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// More may come; those that are there keep all but their time.
fn tolerations(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIELD: [&str; 2] = ["spec", "tolerations"];
    let (news, olds) = (items(pod, &FIELD), items(old, &FIELD));
    if news == olds {
        return;
    }
    let but_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let without: Vec<Value> = news.iter().map(but_time).collect();
    if olds.iter().any(|old| !without.contains(&but_time(old))) {
        causes.push(Cause::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
        return;
    }
    scheduling::tolerations(&pod["spec"], "spec", causes);
}
