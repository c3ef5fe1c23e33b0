//! Lists whose items merge by key.

use serde_json::json;

use super::*;

#[test]
fn list_items_merge_by_key_with_defaults_in_the_key() {
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let types = TypeInfo::builtin("", "v1", "Service").unwrap();
    let live = apply(
        None,
        &service(json!([{"port": 80, "targetPort": 1}])),
        by("one"),
        false,
        types,
    )
    .unwrap();
    let mut live = live;
    live["spec"]["ports"][0]["protocol"] = "TCP".into();
    let both = apply(
        Some(&live),
        &service(json!([{"port": 53, "protocol": "UDP"}])),
        by("two"),
        false,
        types,
    )
    .unwrap();
    let ports: Vec<i64> = both["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [80, 53]);
    let again = apply(
        Some(&both),
        &service(json!([{"port": 80, "targetPort": 2}])),
        by("one"),
        false,
        types,
    )
    .unwrap();
    assert_eq!(
        again["spec"]["ports"][0],
        json!({"port": 80, "targetPort": 2, "protocol": "TCP"})
    );
}

#[test]
fn an_items_removal_leaves_its_neighbours() {
    let with = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "namespace": "d"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    };
    let live = apply(
        None,
        &with(json!([{"name": "a", "image": "1"}])),
        by("one"),
        false,
        deployments(),
    )
    .unwrap();
    let live = apply(
        Some(&live),
        &with(json!([{"name": "b", "image": "1"}])),
        by("mesh"),
        false,
        deployments(),
    )
    .unwrap();
    let live = apply(
        Some(&live),
        &with(json!([{"name": "c", "image": "1"}])),
        by("one"),
        false,
        deployments(),
    )
    .unwrap();
    let names: Vec<&str> = live["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["b", "c"]);
}
