//! Conflicts between managers, and what they share.

use serde_json::json;

use super::*;
use crate::apply::last_applied::LAST_APPLIED;

#[test]
fn a_conflict_is_told_in_the_real_words() {
    let mut object = config_map(json!({"key": "1"}));
    track_update(
        None,
        &mut object,
        by("kubectl-client-side-apply"),
        config_maps(),
    );
    let conflicts = refused(apply(
        Some(&object),
        &config_map(json!({"key": "2"})),
        by("x"),
        false,
        config_maps(),
    ));
    assert_eq!(
        conflicts.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.key"
    );
    assert_eq!(
        conflicts.causes,
        [(
            "conflict with \"kubectl-client-side-apply\" using v1".to_owned(),
            ".data.key".to_owned()
        )]
    );
    let forced = apply(
        Some(&object),
        &config_map(json!({"key": "2"})),
        by("x"),
        true,
        config_maps(),
    )
    .unwrap();
    assert_eq!(forced["data"]["key"], "2");
    assert_eq!(
        fields_of(&forced, "x"),
        Some(&json!({"f:data": {"f:key": {}}}))
    );
    assert_eq!(
        fields_of(&forced, "kubectl-client-side-apply"),
        Some(&json!({"f:data": {}}))
    );
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let object = applied(None, "one", json!({"a": "1"}));
    let object = applied(Some(&object), "two", json!({"b": "1"}));
    let conflicts = refused(apply(
        Some(&object),
        &config_map(json!({"a": "2", "b": "2"})),
        by("x"),
        false,
        config_maps(),
    ));
    assert_eq!(
        conflicts.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\nconflicts with \"two\":\n- .data.b"
    );
}

#[test]
fn the_same_value_is_owned_together() {
    let object = applied(None, "one", json!({"a": "1"}));
    let object = applied(Some(&object), "two", json!({"a": "1"}));
    assert!(fields_of(&object, "one").is_some() && fields_of(&object, "two").is_some());
    // As on Kubernetes, an apply that changes nothing has no time.
    let times: Vec<&Value> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["time"])
        .collect();
    assert_eq!(times, [&Value::Null, &Value::from(NOW)]);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let mut live = config_map(json!({"a": "1", "b": "1"}));
    live["metadata"]["annotations"] =
        json!({LAST_APPLIED: config_map(json!({"a": "1", "b": "1"})).to_string()});
    track_update(
        None,
        &mut live,
        by("kubectl-client-side-apply"),
        config_maps(),
    );
    let moved = apply(
        Some(&live),
        &config_map(json!({"a": "2"})),
        by("kubectl"),
        false,
        config_maps(),
    )
    .unwrap();
    assert_eq!(moved["data"]["a"], "2");
    let last: Value = serde_json::from_str(
        moved["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(last["data"], json!({"a": "2"}));
    // What somebody changed since is not kubectl's.
    let mut edited = live.clone();
    edited["data"]["a"] = "9".into();
    track_update(Some(&live), &mut edited, by("kubectl-edit"), config_maps());
    let conflicts = refused(apply(
        Some(&edited),
        &config_map(json!({"a": "2"})),
        by("kubectl"),
        false,
        config_maps(),
    ));
    assert!(
        conflicts
            .message
            .contains("\"kubectl-edit\" using v1: .data.a"),
        "{}",
        conflicts.message
    );
}
