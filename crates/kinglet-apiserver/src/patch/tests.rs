//! Cases as kubectl and client-go send them.

#![allow(
    clippy::needless_pass_by_value,
    reason = "builders of test objects read better by value"
)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn deployment(containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": containers}}}})
}

fn containers(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"]
}

fn on_deployment(now: &Value, patch: &Value) -> Value {
    strategic("apps", "v1", "Deployment", now, patch).unwrap()
}

#[test]
fn containers_merge_by_name() {
    let now = deployment(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]),
    );
    let patch =
        deployment(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]));
    assert_eq!(
        containers(&on_deployment(&now, &patch)),
        &json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}])
    );
}

#[test]
fn an_item_is_deleted_by_directive() {
    let now = deployment(json!([{"name": "a"}, {"name": "b"}]));
    let patch = deployment(json!([{"name": "a", "$patch": "delete"}]));
    assert_eq!(
        containers(&on_deployment(&now, &patch)),
        &json!([{"name": "b"}])
    );
}

#[test]
fn a_list_is_replaced_by_directive() {
    let now = deployment(json!([{"name": "a"}, {"name": "b"}]));
    let patch = deployment(json!([{"name": "c"}, {"$patch": "replace"}]));
    assert_eq!(
        containers(&on_deployment(&now, &patch)),
        &json!([{"name": "c"}])
    );
}

#[test]
fn an_object_is_replaced_by_directive() {
    let now = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}});
    assert_eq!(
        on_deployment(&now, &patch),
        json!({"metadata": {"labels": {"c": "3"}}})
    );
}

#[test]
fn retain_keys_drops_the_old_member_of_a_union() {
    let now =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        on_deployment(&now, &patch)["spec"]["strategy"],
        json!({"type": "Recreate"})
    );
    let wrong = json!({"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}});
    assert!(matches!(
        strategic("apps", "v1", "Deployment", &now, &wrong),
        Err(PatchError::Malformed(_))
    ));
}

#[test]
fn primitive_lists_merge_and_lose_items() {
    let now = json!({"metadata": {"finalizers": ["a", "b"]}});
    let add = json!({"metadata": {"finalizers": ["c"]}});
    assert_eq!(
        on_deployment(&now, &add)["metadata"]["finalizers"],
        json!(["c", "a", "b"])
    );
    let drop = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(
        on_deployment(&now, &drop)["metadata"]["finalizers"],
        json!(["b"])
    );
}

#[test]
fn the_order_of_elements_is_set() {
    let now = deployment(json!([{"name": "a"}, {"name": "injected"}, {"name": "b"}]));
    let mut patch = deployment(json!([{"name": "c"}]));
    patch["spec"]["template"]["spec"]["$setElementOrder/containers"] =
        json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]);
    let merged = on_deployment(&now, &patch);
    let names: Vec<&str> = containers(&merged)
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names
            .iter()
            .filter(|n| **n != "injected")
            .copied()
            .collect::<Vec<_>>(),
        ["c", "b", "a"]
    );
    assert!(names.contains(&"injected"));
}

#[test]
fn service_ports_merge_by_port_and_tolerations_are_replaced() {
    let now = json!({"spec": {"ports": [{"port": 80, "name": "a"}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 1}, {"port": 81}]}});
    let merged = strategic("", "v1", "Service", &now, &patch).unwrap();
    assert_eq!(
        merged["spec"]["ports"],
        json!([{"port": 80, "name": "a", "targetPort": 1}, {"port": 81}])
    );
    let now = json!({"spec": {"tolerations": [{"key": "a"}]}});
    let patch = json!({"spec": {"tolerations": [{"key": "b"}]}});
    assert_eq!(
        strategic("", "v1", "Pod", &now, &patch).unwrap()["spec"]["tolerations"],
        json!([{"key": "b"}])
    );
}

#[test]
fn null_deletes_and_missing_keys_are_named() {
    let now = json!({"data": {"a": "1", "b": "2"}});
    assert_eq!(
        strategic("", "v1", "ConfigMap", &now, &json!({"data": {"a": null}})).unwrap(),
        json!({"data": {"b": "2"}})
    );
    let error = strategic(
        "",
        "v1",
        "Pod",
        &json!({}),
        &json!({"spec": {"containers": [{"image": "x"}]}}),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "map: {\"image\":\"x\"} does not contain declared merge key: name"
    );
    assert_eq!(
        strategic("serving.knative.dev", "v1", "Service", &now, &now),
        Err(PatchError::Unsupported)
    );
}

#[test]
fn json_patches_apply_whole_or_not_at_all() {
    let mut object = json!({"a": {"b": 1}});
    json(&mut object, &json!([{"op": "replace", "path": "/a/b", "value": 2}, {"op": "add", "path": "/c", "value": []}])).unwrap();
    assert_eq!(object, json!({"a": {"b": 2}, "c": []}));
    let failing =
        json!([{"op": "remove", "path": "/c"}, {"op": "test", "path": "/a/b", "value": 1}]);
    assert!(matches!(
        json(&mut object, &failing),
        Err(PatchError::DoesNotFit(_))
    ));
    assert_eq!(object, json!({"a": {"b": 2}, "c": []}));
    assert!(matches!(
        json(&mut object, &json!({"op": "add"})),
        Err(PatchError::Malformed(_))
    ));
}

#[test]
fn merge_patches_follow_the_rfc() {
    let mut object = json!({"a": {"b": 1, "c": [1]}, "d": 1});
    merge(
        &mut object,
        &json!({"a": {"b": null, "c": [2]}, "d": {"e": {"f": null}}}),
    );
    assert_eq!(object, json!({"a": {"c": [2]}, "d": {"e": {}}}));
}

/// Where there was nothing to merge with, Go leaves nulls and directives, which its structs then drop.
fn without_leavings(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, v| !v.is_null() && !name.starts_with('$'));
            fields.values_mut().for_each(without_leavings);
        }
        Value::Array(items) => items.iter_mut().for_each(without_leavings),
        _ => {}
    }
}

/// Two-way, three-way and random patches as apimachinery v0.34.4 made and applied them; 12 000 more agreed when these were recorded.
#[test]
fn patches_end_as_with_the_real_library() {
    for (at, line) in include_str!("vectors.jsonl").lines().enumerate() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| case[name].as_str().unwrap();
        let merged = strategic(
            text("group"),
            text("version"),
            text("kind"),
            &case["current"],
            &case["patch"],
        )
        .unwrap();
        without_leavings(&mut case["result"]);
        assert_eq!(merged, case["result"], "{at}");
    }
}

fn small_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "spec",
        "containers",
        "name",
        "env",
        "metadata",
        "labels",
        "$patch",
        "$retainKeys",
        "finalizers",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "delete",
        "replace",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        names.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_makes_it_panic(current in small_json(), patch in small_json()) {
        let _ = strategic("", "v1", "Pod", &current, &patch);
        let _ = json(&mut current.clone(), &patch);
        merge(&mut current.clone(), &patch);
    }
}

#[test]
fn a_small_json_patch_makes_no_large_or_deep_object() {
    // Each copy doubles what the next one copies.
    let mut doubling = vec![json!({"op": "add", "path": "/d0", "value": "x".repeat(1000)})];
    doubling
        .extend((0..40).map(|n| json!({"op": "add", "path": format!("/d{}", n + 1), "value": {}})));
    for n in 0..40 {
        for half in ["a", "b"] {
            doubling.push(json!({"op": "copy", "from": format!("/d{n}"), "path": format!("/d{}/{half}", n + 1)}));
        }
    }
    // Each move hangs the tower below a new root.
    let mut tower = vec![json!({"op": "add", "path": "/t0", "value": {}})];
    for n in 0..4000 {
        tower.push(json!({"op": "add", "path": format!("/t{}", n + 1), "value": {}}));
        tower.push(
            json!({"op": "move", "from": format!("/t{n}"), "path": format!("/t{}/x", n + 1)}),
        );
    }
    for patch in [doubling, tower] {
        let mut target = json!({});
        let error = super::json(&mut target, &Value::from(patch)).unwrap_err();
        assert!(matches!(error, PatchError::TooLarge(_)), "{error}");
        assert_eq!(target, json!({}));
    }
    // Moving and copying at the same depth is free.
    let mut target = json!({"a": {"b": {"c": 1}}});
    let many: Vec<Value> = (0..5000)
        .map(|n| json!({"op": "copy", "from": "/a/b", "path": format!("/a/n{n}")}))
        .collect();
    super::json(&mut target, &Value::from(many)).unwrap();
}

/// What kube-apiserver 1.34 answered to each.
#[test]
fn a_key_that_is_missing_is_read_as_kubernetes_does() {
    let object = json!({"data": {"k": "v"}, "list": ["a"]});
    let tried = |operation: &Value| {
        let mut object = object.clone();
        json(&mut object, &json!([operation])).map(|()| object)
    };
    for (operation, after) in [
        (
            json!({"op": "replace", "path": "/data/x", "value": "1"}),
            json!({"data": {"k": "v", "x": "1"}, "list": ["a"]}),
        ),
        (
            json!({"op": "replace", "path": "/nope", "value": "1"}),
            json!({"data": {"k": "v"}, "list": ["a"], "nope": "1"}),
        ),
        (
            json!({"op": "copy", "from": "/data/x", "path": "/data/y"}),
            json!({"data": {"k": "v", "y": null}, "list": ["a"]}),
        ),
        (
            json!({"op": "test", "path": "/data/x", "value": null}),
            object.clone(),
        ),
    ] {
        assert_eq!(tried(&operation), Ok(after), "{operation}");
    }
    for operation in [
        json!({"op": "replace", "path": "/none/x", "value": "1"}),
        json!({"op": "replace", "path": "/list/1", "value": "1"}),
        json!({"op": "replace", "path": "/list/-", "value": "1"}),
        json!({"op": "move", "from": "/data/x", "path": "/data/y"}),
        json!({"op": "remove", "path": "/data/x"}),
        json!({"op": "test", "path": "/data/x", "value": "1"}),
        json!({"op": "test", "path": "/none/x", "value": null}),
    ] {
        assert!(
            matches!(tried(&operation), Err(PatchError::DoesNotFit(_))),
            "{operation}"
        );
    }
}
