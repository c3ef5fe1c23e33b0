//! Reading and writing the parts that all objects share.

use bytes::{BufMut, Bytes, BytesMut};

use kinglet_quantity::LabelSelector;
use serde_json::{Map, Value};

pub(crate) use kinglet_quantity::fields::{blank, child, default, default_text, fields};

/// The text at a path of keys; empty when absent or not text.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The value at a path of keys.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The number at a path of keys.
pub(crate) fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The array at a path of keys; empty when absent.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !blank(at(object, &["metadata", "deletionTimestamp"]))
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    items(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Returns whether a Pod takes requests.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = items(pod, &["status", "conditions"]).iter();
    kinglet_quantity::pod::is_ready(
        conditions.map(|condition| (text(condition, &["type"]), text(condition, &["status"]))),
    )
}

/// The metadata of an object, made if missing.
pub(crate) fn meta(object: &mut Value) -> &mut Map<String, Value> {
    child(fields(object), "metadata")
}

/// Copies a field from one map to another, or removes it.
pub(crate) fn carry(from: &Value, to: &mut Map<String, Value>, key: &str) {
    match from.get(key) {
        Some(value) => {
            to.insert(key.to_owned(), value.clone());
        }
        None => {
            to.remove(key);
        }
    }
}

/// Does a label selector object (`matchLabels`, `matchExpressions`) select an object? An empty one selects everything, none nothing.
pub(crate) fn matches_labels(selector: &Value, object: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    label_selector(selector)
        .matches(|key| at(object, &["metadata", "labels", key]).and_then(Value::as_str))
}

/// A label selector object, read. What it cannot say (another operator) selects nothing.
fn label_selector(selector: &Value) -> LabelSelector {
    let texts = |list: &[Value]| -> Vec<String> {
        let texts = list.iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let mut out = LabelSelector::default();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        out = out.with_expression(key, "In", &texts(std::slice::from_ref(value)));
    }
    for each in items(selector, &["matchExpressions"]) {
        let operator = match text(each, &["operator"]) {
            known @ ("In" | "NotIn" | "Exists" | "DoesNotExist") => known,
            _ => "",
        };
        out = out.with_expression(
            text(each, &["key"]),
            operator,
            &texts(items(each, &["values"])),
        );
    }
    out
}

/// A label selector object in the one-line form.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    for each in items(selector, &["matchExpressions"]) {
        let key = text(each, &["key"]);
        let values: Vec<&str> = items(each, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match text(each, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.join(",")
}

/// Only the metadata of an object.
pub(crate) fn partial(object: &Value, version: &str) -> Value {
    serde_json::json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    meta(object).insert("resourceVersion".to_owned(), revision.to_string().into());
}

/// An object as bytes with the place of its revision left open.
pub(crate) struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    /// Serialises once; the exact place of `metadata.resourceVersion` is known because metadata is written by hand.
    pub(crate) fn new(object: &Value) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        let mut at = 0;
        bytes.push(b'{');
        let mut first = true;
        let fields = object.as_object();
        let mut write = |bytes: &mut Vec<u8>, key: &str, value: &Value| {
            put_key(bytes, key, &mut first);
            if key == "metadata" {
                at = write_metadata(bytes, value);
            } else {
                write_value(bytes, value);
            }
        };
        for (key, value) in fields.into_iter().flatten() {
            write(&mut bytes, key, value);
        }
        if !fields.is_some_and(|fields| fields.contains_key("metadata")) {
            write(&mut bytes, "metadata", &Value::Null);
        }
        bytes.push(b'}');
        Self { bytes, at }
    }

    /// The bytes with this revision in.
    pub(crate) fn stamp(&self, revision: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len() + 20);
        out.put_slice(&self.bytes[..self.at]);
        out.put_slice(revision.to_string().as_bytes());
        out.put_slice(&self.bytes[self.at..]);
        out.freeze()
    }
}

fn put_key(bytes: &mut Vec<u8>, key: &str, first: &mut bool) {
    if !std::mem::take(first) {
        bytes.push(b',');
    }
    serde_json::to_writer(&mut *bytes, key).expect("writing text to memory");
    bytes.push(b':');
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(&mut *bytes, value).expect("writing a value to memory");
}

fn write_metadata(bytes: &mut Vec<u8>, metadata: &Value) -> usize {
    bytes.push(b'{');
    let mut first = true;
    let mut place = None;
    for (key, value) in metadata.as_object().into_iter().flatten() {
        if key == "resourceVersion" || (place.is_none() && key.as_str() > "resourceVersion") {
            put_key(bytes, "resourceVersion", &mut first);
            bytes.push(b'"');
            place = Some(bytes.len());
            bytes.push(b'"');
            if key == "resourceVersion" {
                continue;
            }
        }
        if key == "resourceVersion" {
            continue;
        }
        put_key(bytes, key, &mut first);
        write_value(bytes, value);
    }
    let place = place.unwrap_or_else(|| {
        put_key(bytes, "resourceVersion", &mut first);
        bytes.push(b'"');
        let place = bytes.len();
        bytes.push(b'"');
        place
    });
    bytes.push(b'}');
    place
}

/// Puts another revision into stored bytes; for the rare restore of a refused write.
pub(crate) fn restamp(value: &Bytes, revision: u64) -> Bytes {
    match serde_json::from_slice::<Value>(value) {
        Ok(mut object) => {
            set_revision(&mut object, revision);
            Bytes::from(object.to_string())
        }
        Err(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_lands_in_metadata_and_nowhere_else() {
        for object in [
            json!({"kind": "A", "metadata": {"annotations": {"resourceVersion": ""}, "name": "a", "uid": "u"}}),
            json!({"metadata": {"resourceVersion": "7", "zzz": 1}, "spec": {"resourceVersion": "no"}}),
            json!({"metadata": {}}),
            json!({"metadata": {"annotations": {}}}),
            json!({}),
        ] {
            let stamped: Value = serde_json::from_slice(&Template::new(&object).stamp(42)).unwrap();
            let mut expected = object.clone();
            set_revision(&mut expected, 42);
            assert_eq!(stamped, expected);
        }
    }
}
