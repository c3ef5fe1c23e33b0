//! What may change in a running pod.

use serde_json::Value;

use crate::object::{items, text};
use crate::status::Cause;

/// A running pod's specification is as good as fixed.
pub(super) fn update(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let mut allowed = pod["spec"].clone();
    let before = &old["spec"];
    if let (Some(new), Some(old)) = (allowed.as_object_mut(), before.as_object()) {
        for key in [
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "tolerations",
            "schedulingGates",
        ] {
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
