//! Custom resources, and objects without the shape of their kind.

use serde_json::json;

use super::*;
use crate::schema::Schema;

#[test]
fn custom_resources_merge_by_their_schema() {
    let schema = Schema::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "traffic": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["tag"],
            "items": {"type": "object", "properties": {"tag": {"type": "string"}, "percent": {"type": "integer"}}}},
        "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "args": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    }}}}))
    .unwrap();
    let types = TypeInfo::custom(&schema).with_status_subresource(true);
    let object = |spec: Value| json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": spec});
    let first = object(
        json!({"traffic": [{"tag": "a", "percent": 1}], "names": ["x"], "args": ["1"], "free": {"a": {"b": [1]}}}),
    );
    let live = apply(None, &first, by("one"), false, types).unwrap();
    assert_eq!(
        fields_of(&live, "one").unwrap()["f:spec"],
        json!({"f:traffic": {"k:{\"tag\":\"a\"}": {".": {}, "f:tag": {}, "f:percent": {}}}, "f:names": {"v:\"x\"": {}},
            "f:args": {}, "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}}})
        .as_object()
        .map(|fields| {
            let mut fields = fields.clone();
            fields.insert("f:free".into(), json!({"f:a": {".": {}, "f:b": {}}}));
            Value::Object(fields)
        })
        .unwrap()
    );
    let second = object(json!({"traffic": [{"tag": "b", "percent": 2}], "names": ["y"]}));
    let live = apply(Some(&live), &second, by("two"), false, types).unwrap();
    assert_eq!(live["spec"]["names"], json!(["x", "y"]));
    assert_eq!(live["spec"]["traffic"].as_array().unwrap().len(), 2);
    let conflicts = refused(apply(
        Some(&live),
        &object(json!({"traffic": [{"tag": "a", "percent": 9}]})),
        by("z"),
        false,
        types,
    ));
    assert_eq!(conflicts.causes[0].1, ".spec.traffic[tag=\"a\"].percent");
}

#[test]
fn what_has_no_place_is_refused() {
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "dota": {}});
    assert_eq!(
        apply(None, &unknown, by("x"), false, config_maps()),
        Err(ApplyError::Untyped(
            "failed to create typed patch object (d/c; v1, Kind=ConfigMap): .dota: field not declared in schema".to_owned()
        ))
    );
    let twice = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c", "namespace": "d"},
        "spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
    let pods = TypeInfo::builtin("", "v1", "Pod").unwrap();
    let Err(ApplyError::Untyped(message)) = apply(None, &twice, by("x"), false, pods) else {
        panic!()
    };
    assert!(
        message.ends_with(".spec.containers: duplicate entries for key [name=\"a\"]"),
        "{message}"
    );
    let mut carrying = config_map(json!({}));
    carrying["metadata"]["managedFields"] = json!([]);
    assert_eq!(
        apply(None, &carrying, by("x"), false, config_maps()),
        Err(ApplyError::Invalid(
            "metadata.managedFields must be nil".to_owned()
        ))
    );
}
