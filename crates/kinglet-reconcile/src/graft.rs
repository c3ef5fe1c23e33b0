//! Puts a change of known fields onto an object that has more of them: pure.
//!
//! What our types do not know is lost when an object is read as a type and written back. A graft takes the JSON as the API
//! server gave it, and from the typed forms before and after only the difference.

use serde_json::{Map, Value};

/// Fields by which the items of a list are known, in the order in which they are tried.
const NAMES: [&str; 8] = [
    "name",
    "type",
    "uid",
    "ip",
    "containerPort",
    "mountPath",
    "devicePath",
    "key",
];

/// `raw` with what differs between `before` and `desired`, two readings of it as the same type. A missing field and a null
/// one are the same.
pub(crate) fn graft(raw: Value, before: &Value, desired: &Value) -> Value {
    match (raw, before, desired) {
        (raw, before, desired) if before == desired => raw,
        (Value::Object(raw), Value::Object(before), Value::Object(desired)) => {
            Value::Object(objects(raw, before, desired))
        }
        (Value::Array(raw), Value::Array(before), Value::Array(desired))
            if raw.len() == before.len() =>
        {
            Value::Array(arrays(raw, before, desired))
        }
        (_, _, desired) => desired.clone(),
    }
}

fn objects(
    mut raw: Map<String, Value>,
    before: &Map<String, Value>,
    desired: &Map<String, Value>,
) -> Map<String, Value> {
    for (name, was) in before {
        if !was.is_null() && desired.get(name).is_none_or(Value::is_null) {
            raw.remove(name);
        }
    }
    for (name, wanted) in desired {
        let was = before.get(name).unwrap_or(&Value::Null);
        if wanted == was || wanted.is_null() {
            continue;
        }
        let value = match raw.remove(name) {
            Some(value) => graft(value, was, wanted),
            None => wanted.clone(),
        };
        raw.insert(name.clone(), value);
    }
    raw
}

/// Each wanted item is made from the one that it was, so that this one's other fields stay.
fn arrays(raw: Vec<Value>, before: &[Value], desired: &[Value]) -> Vec<Value> {
    let name = NAMES
        .into_iter()
        .find(|name| is_known_by(before, name) && is_known_by(desired, name));
    let mut raw: Vec<Option<Value>> = raw.into_iter().map(Some).collect();
    let was = |at: usize, wanted: &Value, free: &dyn Fn(usize) -> bool| match name {
        Some(name) => before
            .iter()
            .position(|was| was.get(name) == wanted.get(name)),
        None => {
            let same = (0..before.len()).find(|at| free(*at) && before[*at] == *wanted);
            let in_place = (before.len() == desired.len()).then_some(at);
            same.or(in_place.filter(|at| free(*at)))
        }
    };
    let mut out = Vec::with_capacity(desired.len());
    for (at, wanted) in desired.iter().enumerate() {
        let found = was(at, wanted, &|at| raw[at].is_some());
        let item = found.and_then(|at| Some(graft(raw[at].take()?, &before[at], wanted)));
        out.push(item.unwrap_or_else(|| wanted.clone()));
    }
    out
}

/// Whether every item has the field, each another value.
fn is_known_by(items: &[Value], name: &str) -> bool {
    let mut values: Vec<&Value> = Vec::with_capacity(items.len());
    for item in items {
        match item.get(name) {
            Some(value) if !value.is_null() && !values.contains(&value) => values.push(value),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_difference_is_taken() {
        let rows = [
            (
                "a field changes beside one that is not known",
                json!({"spec": {"replicas": 1, "newField": {"a": 1}}}),
                json!({"spec": {"replicas": 1}}),
                json!({"spec": {"replicas": 3}}),
                json!({"spec": {"replicas": 3, "newField": {"a": 1}}}),
            ),
            (
                "a field goes",
                json!({"spec": {"paused": true, "newField": 1}}),
                json!({"spec": {"paused": true}}),
                json!({"spec": {}}),
                json!({"spec": {"newField": 1}}),
            ),
            (
                "what the type adds by itself is not written",
                json!({"spec": {"a": 1}}),
                json!({"spec": {"a": 1, "list": [], "none": null}}),
                json!({"spec": {"a": 2, "list": [], "none": null}}),
                json!({"spec": {"a": 2}}),
            ),
            (
                "items are known by name, wherever they are",
                json!({"c": [{"name": "a", "image": "1", "new": 1}, {"name": "b", "image": "1", "new": 2}]}),
                json!({"c": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
                json!({"c": [{"name": "b", "image": "2"}, {"name": "d", "image": "4"}]}),
                json!({"c": [{"name": "b", "image": "2", "new": 2}, {"name": "d", "image": "4"}]}),
            ),
            (
                "items without a name are found by their value",
                json!({"c": [{"k": "a", "new": 1}, {"k": "b", "new": 2}]}),
                json!({"c": [{"k": "a"}, {"k": "b"}]}),
                json!({"c": [{"k": "b"}]}),
                json!({"c": [{"k": "b", "new": 2}]}),
            ),
            (
                "or by their place",
                json!({"c": [{"k": "a", "new": 1}, {"k": "b", "new": 2}]}),
                json!({"c": [{"k": "a"}, {"k": "b"}]}),
                json!({"c": [{"k": "a"}, {"k": "c"}]}),
                json!({"c": [{"k": "a", "new": 1}, {"k": "c", "new": 2}]}),
            ),
            (
                "lists of words",
                json!({"finalizers": ["a", "b"]}),
                json!({"finalizers": ["a", "b"]}),
                json!({"finalizers": ["b"]}),
                json!({"finalizers": ["b"]}),
            ),
            (
                "another type of value",
                json!({"port": 80}),
                json!({"port": 80}),
                json!({"port": "http"}),
                json!({"port": "http"}),
            ),
        ];
        for (name, raw, before, desired, expected) in rows {
            assert_eq!(graft(raw, &before, &desired), expected, "{name}");
        }
    }

    fn container() -> impl Strategy<Value = Value> {
        ("[a-c]", "[x-z]", prop::option::of(0..3_u8)).prop_map(|(name, image, arguments)| {
            let arguments = arguments.map(|count| vec!["a"; count.into()]);
            json!({"name": name, "image": image, "args": arguments, "env": [{"name": "E", "value": image}]})
        })
    }

    fn deployment() -> impl Strategy<Value = Deployment> {
        let labels = prop::collection::btree_map("[a-c]", "[x-z]", 0..3);
        let containers = prop::collection::vec(container(), 0..4);
        (labels, containers, prop::option::of(0..4)).prop_map(|(labels, containers, replicas)| {
            serde_json::from_value(json!({
                "metadata": {"name": "x", "labels": labels},
                "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": containers}}},
                "status": {"replicas": replicas},
            }))
            .unwrap()
        })
    }

    /// Puts a field that no type knows into every object.
    fn sprinkle(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.iter_mut().for_each(|(_, value)| sprinkle(value));
                fields.insert("newField".to_owned(), json!(1));
            }
            Value::Array(items) => items.iter_mut().for_each(sprinkle),
            _ => {}
        }
    }

    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("newField");
                fields.retain(|_, value| !value.is_null());
                fields.iter_mut().for_each(|(_, value)| strip(value));
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn known_fields_become_as_desired_and_nothing_changes_without_need(before in deployment(), desired in deployment()) {
            let (before, desired) = (serde_json::to_value(before).unwrap(), serde_json::to_value(desired).unwrap());
            let mut raw = before.clone();
            sprinkle(&mut raw);
            prop_assert_eq!(graft(raw.clone(), &before, &before), raw.clone());
            let grafted = graft(raw, &before, &desired);
            prop_assert_eq!(&grafted["spec"]["newField"], &json!(1));
            prop_assert_eq!(graft(grafted.clone(), &desired, &desired), grafted.clone());
            let (mut known, mut wanted) = (grafted, desired);
            strip(&mut known);
            strip(&mut wanted);
            prop_assert_eq!(known, wanted);
        }
    }
}
