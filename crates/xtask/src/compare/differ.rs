//! Two JSON values made comparable, and the places where they still differ.

use serde_json::Value;

/// Fields that differ by nature and say nothing, or that the recording left out.
const IGNORED: [&str; 6] = [
    "uid",
    "resourceVersion",
    "managedFields",
    "selfLink",
    "creationTimestamp",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// One place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) expected: Option<Value>,
    pub(crate) actual: Option<Value>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.expected, &self.actual) {
            (Some(expected), Some(actual)) => {
                write!(f, "{}: expected {expected}, got {actual}", self.path)
            }
            (Some(expected), None) => write!(f, "{}: missing, expected {expected}", self.path),
            (None, Some(actual)) => write!(f, "{}: not expected, got {actual}", self.path),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// Appends every difference below `path`. Null, absence and an empty list are the same, as everywhere in Kubernetes' API.
pub(crate) fn diff(path: &str, expected: &Value, actual: &Value, found: &mut Vec<Difference>) {
    match (expected, actual) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys
                .into_iter()
                .filter(|key| !IGNORED.contains(&key.as_str()))
            {
                let path = format!("{path}.{key}");
                let there = |value: &&Value| {
                    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
                };
                match (left.get(key).filter(there), right.get(key).filter(there)) {
                    (None, None) => {}
                    (Some(left), Some(right)) => diff(&path, left, right, found),
                    (left, right) => found.push(Difference {
                        path,
                        expected: left.cloned(),
                        actual: right.cloned(),
                    }),
                }
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            for index in 0..left.len().max(right.len()) {
                let path = format!(
                    "{path}[{}]",
                    label(left.get(index).or(right.get(index)), index)
                );
                match (left.get(index), right.get(index)) {
                    (Some(left), Some(right)) => diff(&path, left, right, found),
                    (left, right) => found.push(Difference {
                        path,
                        expected: left.cloned(),
                        actual: right.cloned(),
                    }),
                }
            }
        }
        (Value::String(left), Value::String(right)) if same_text(left, right) => {}
        (left, right) if left == right => {}
        _ => found.push(Difference {
            path: path.to_owned(),
            expected: Some(expected.clone()),
            actual: Some(actual.clone()),
        }),
    }
}

/// Items are named by what identifies them, so that a path tells where to look.
fn label(item: Option<&Value>, index: usize) -> String {
    let name = item.and_then(|item| {
        ["name", "type", "port"]
            .iter()
            .find_map(|key| item.get(*key))
    });
    match name {
        Some(Value::String(name)) => name.clone(),
        _ => index.to_string(),
    }
}

fn same_text(expected: &str, actual: &str) -> bool {
    expected == actual
        || (expected == "TIME" && !actual.is_empty())
        || (expected == "CONTAINER-ID" && actual.contains("://"))
        || (is_uuid(expected) && is_uuid(actual))
        || (expected.parse::<std::net::IpAddr>().is_ok()
            && actual.parse::<std::net::IpAddr>().is_ok())
        || (expected.starts_with("sha256:") && actual.contains("sha256:"))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| {
            if [8, 13, 18, 23].contains(&index) {
                byte == b'-'
            } else {
                byte.is_ascii_hexdigit()
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nature_is_equal_and_the_rest_is_named() {
        let expected = json!({"metadata": {"uid": "1", "t": "TIME", "u": "1ecd41e2-2971-42f5-821a-6cd5a4ea4147"}, "list": [{"name": "a", "v": 1, "probed": null}], "none": null, "ip": "10.0.0.1"});
        let actual = json!({"metadata": {"uid": "2", "t": "2026", "u": "aecd41e2-2971-42f5-821a-6cd5a4ea4147"}, "list": [{"name": "a", "v": 2}, {"name": "b"}], "none": [], "ip": "10.9.9.9"});
        let mut found = Vec::new();
        diff("", &expected, &actual, &mut found);
        let paths: Vec<&str> = found
            .iter()
            .map(|difference| difference.path.as_str())
            .collect();
        assert_eq!(paths, [".list[a].v", ".list[b]"]);
    }
}
