//! What changed between two templates, worded like Go's struct diffs that upstream shows.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::shape;

/// Fields of a Revision's spec that are not part of the inlined PodSpec.
const OWN: [&str; 4] = [
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
];
/// Most lines shown; the first ones tell enough.
const CHANGES_MAX: usize = 50;

/// One block per change: the path, the old value, the new one.
pub(super) fn between(old: &Value, new: &Value, root: &str) -> String {
    let mut changes = Vec::new();
    walk(old, new, root, root == "{v1.RevisionSpec}", &mut changes);
    changes.truncate(CHANGES_MAX);
    changes.concat()
}

fn walk(old: &Value, new: &Value, path: &str, in_spec: bool, changes: &mut Vec<String>) {
    if old == new || changes.len() >= CHANGES_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let mut keys: Vec<&String> = keys.into_iter().collect();
            let order = order(path, in_spec);
            keys.sort_by_key(|key| {
                order
                    .iter()
                    .position(|field| field == key)
                    .unwrap_or(usize::MAX)
            });
            for key in keys {
                let (left, right) = (
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                );
                let is_map = ["labels", "annotations"]
                    .iter()
                    .any(|map| path.to_lowercase().ends_with(map));
                let inner = if is_map {
                    format!("{path}[{}]", crate::go::quote(key))
                } else if in_spec && !OWN.contains(&key.as_str()) {
                    format!("{path}.PodSpec.{}", capitalized(key))
                } else {
                    format!("{path}.{}", capitalized(key))
                };
                walk(left, right, &inner, key == "spec", changes);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (left, right)) in a.iter().zip(b).enumerate() {
                walk(left, right, &format!("{path}[{i}]"), false, changes);
            }
        }
        _ => changes.push(format!(
            "{path}:\n\t-: {}\n\t+: {}\n",
            shown(old, new),
            shown(new, old)
        )),
    }
}

/// Go compares structs field by field, in the order in which they are declared.
fn order(path: &str, in_spec: bool) -> Vec<&'static str> {
    let item = path.rsplit('.').next().unwrap_or_default();
    if in_spec {
        shape::field_names("RevisionSpec")
    } else if item.starts_with("Containers[") || item.starts_with("InitContainers[") {
        shape::field_names("Container")
    } else {
        Vec::new()
    }
}

/// A missing text is empty in Go, a missing anything else is nil.
fn shown(value: &Value, other: &Value) -> String {
    match value {
        Value::Null if other.is_string() => "\"\"".to_owned(),
        Value::Null => "\"nil\"".to_owned(),
        Value::String(text) => crate::go::quote(text),
        other => crate::go::quote(&other.to_string()),
    }
}

fn capitalized(key: &str) -> String {
    let mut chars = key.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::between;
    use serde_json::json;

    #[test]
    fn changes_are_named_by_path() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}], "timeoutSeconds": 1}});
        let new = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"image": "y"}], "timeoutSeconds": 2}});
        assert_eq!(
            between(&old, &new, "{T}"),
            "{T}.Spec.PodSpec.Containers[0].Name:\n\t-: \"c\"\n\t+: \"\"\n{T}.Spec.PodSpec.Containers[0].Image:\n\t-: \"x\"\n\t+: \"y\"\n{T}.Spec.TimeoutSeconds:\n\t-: \"1\"\n\t+: \"2\"\n"
        );
    }
}
