//! Who owns what after creates, applies, updates and writes of the status.

use serde_json::json;

use super::*;

#[test]
fn a_created_deployment_is_owned_as_on_kubernetes() {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "generation": 1, "labels": {"app": "web"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "nginx", "image": "nginx", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}
            ]}}
        },
        "status": {}
    });
    track_update(None, &mut object, by("kubectl-create"), deployments());
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["time"], NOW);
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"nginx\"}": {
                        ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {}
                        }}
                    }}}
                }
            }
        })
    );
}

#[test]
fn an_applied_object_is_owned_by_what_it_says() {
    let applied = config_map(json!({"a": "1"}));
    let object = apply(None, &applied, by("kubectl"), false, config_maps()).unwrap();
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}}}}])
    );
    let again = apply(
        Some(&object),
        &applied,
        Writer {
            now: LATER,
            ..by("kubectl")
        },
        false,
        config_maps(),
    )
    .unwrap();
    assert_eq!(again, object);
}

#[test]
fn a_field_no_longer_applied_goes() {
    let object = applied(None, "k", json!({"a": "1", "b": "2"}));
    let object = applied(Some(&object), "k", json!({"a": "1"}));
    assert_eq!(object["data"], json!({"a": "1"}));
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}});
    let object = apply(Some(&object), &bare, by("k"), false, config_maps()).unwrap();
    assert_eq!(object.get("data"), None);
    assert_eq!(object["metadata"].get("managedFields"), None);
}

#[test]
fn a_field_that_another_manager_also_applies_stays() {
    let object = applied(None, "one", json!({"a": "1", "b": "2"}));
    let object = applied(Some(&object), "two", json!({"b": "2"}));
    let object = applied(Some(&object), "one", json!({"a": "1"}));
    assert_eq!(object["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(
        fields_of(&object, "one"),
        Some(&json!({"f:data": {"f:a": {}}}))
    );
}

#[test]
fn an_untracked_object_is_owned_by_what_was_before() {
    let live = config_map(json!({"a": "1"}));
    let object = apply(
        Some(&live),
        &config_map(json!({"b": "1"})),
        by("x"),
        false,
        config_maps(),
    )
    .unwrap();
    assert_eq!(
        fields_of(&object, "before-first-apply"),
        Some(&json!({"f:data": {".": {}, "f:a": {}}}))
    );
    let mut updated = config_map(json!({"a": "2"}));
    track_update(Some(&live), &mut updated, by("y"), config_maps());
    assert_eq!(updated["metadata"].get("managedFields"), None);
}

#[test]
fn updates_take_what_they_change_and_times_move_only_then() {
    let live = applied(None, "one", json!({"a": "1", "b": "1"}));
    let mut same = live.clone();
    track_update(
        Some(&live),
        &mut same,
        Writer {
            now: LATER,
            ..by("two")
        },
        config_maps(),
    );
    assert_eq!(same, live);
    let mut changed = live.clone();
    changed["data"]["a"] = "2".into();
    track_update(
        Some(&live),
        &mut changed,
        Writer {
            now: LATER,
            ..by("two")
        },
        config_maps(),
    );
    assert_eq!(
        fields_of(&changed, "one"),
        Some(&json!({"f:data": {"f:b": {}}}))
    );
    assert_eq!(
        fields_of(&changed, "two"),
        Some(&json!({"f:data": {"f:a": {}}}))
    );
    let times: Vec<&Value> = changed["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["time"])
        .collect();
    assert_eq!(times, [NOW, LATER]);
}

#[test]
fn a_status_write_owns_status_only() {
    let live = apply(
        None,
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}, "spec": {"replicas": 1}}),
        by("one"),
        false,
        deployments(),
    )
    .unwrap();
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["spec"]["replicas"] = 5.into();
    track_update(
        Some(&live),
        &mut new,
        Writer {
            subresource: "status",
            ..by("controller")
        },
        deployments(),
    );
    let entry = new["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["manager"] == "controller")
        .unwrap();
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"]["f:status"]["f:conditions"],
        json!({".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}})
    );
    assert_eq!(entry["fieldsV1"].get("f:spec"), None);
}

#[test]
fn clients_may_write_the_list_themselves_or_forget_it() {
    let mut live = config_map(json!({"a": "1"}));
    track_update(
        None,
        &mut live,
        by("kubectl-client-side-apply"),
        config_maps(),
    );
    // kubectl's migration: the same fields under another manager.
    let mut moved = live.clone();
    moved["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
    moved["metadata"]["managedFields"][0]["operation"] = "Apply".into();
    track_update(Some(&live), &mut moved, by("kubectl"), config_maps());
    assert_eq!(moved["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(
        moved["metadata"]["managedFields"].as_array().unwrap().len(),
        1
    );
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(Some(&live), &mut reset, by("kubectl"), config_maps());
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[test]
fn many_updaters_fold_into_one() {
    let mut live = config_map(json!({}));
    track_update(None, &mut live, by("m0"), config_maps());
    live["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:immutable": {}}}]);
    for at in 0..15 {
        let mut new = live.clone();
        new["data"][format!("k{at}")] = "1".into();
        let now = format!("2024-05-06T07:08:{at:02}Z");
        let name = format!("m{at}");
        track_update(
            Some(&live),
            &mut new,
            Writer {
                manager: &name,
                subresource: "",
                now: &now,
            },
            config_maps(),
        );
        live = new;
    }
    let updaters: Vec<&str> = live["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["operation"] == "Update")
        .map(|e| e["manager"].as_str().unwrap())
        .collect();
    assert_eq!(updaters.len(), 10);
    assert!(updaters.contains(&"ancient-changes"));
}
