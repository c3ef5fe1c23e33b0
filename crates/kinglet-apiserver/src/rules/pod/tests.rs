//! Users, modes and paths that lie outside of what a node can act on: a user id of 4294967295 means "as before" to the kernel.

use serde_json::{Value, json};

fn said(spec: &Value) -> Vec<String> {
    let mut causes = Vec::new();
    super::spec(spec, "spec", &mut causes);
    let about = |message: &&String| message.contains("must ") && !message.contains("handler");
    causes
        .iter()
        .map(|cause| format!("{cause:?}"))
        .collect::<Vec<_>>()
        .iter()
        .filter(about)
        .cloned()
        .collect()
}

#[test]
fn ids_that_the_kernel_takes_for_no_change_are_refused() {
    for id in [-1_i64, 1 << 31, 4_294_967_295, 4_294_967_296] {
        for spec in [
            json!({"securityContext": {"runAsUser": id}}),
            json!({"securityContext": {"runAsGroup": id}}),
            json!({"securityContext": {"fsGroup": id}}),
            json!({"securityContext": {"supplementalGroups": [1, id]}}),
            json!({"containers": [{"securityContext": {"runAsUser": id}}]}),
            json!({"initContainers": [{"securityContext": {"runAsGroup": id}}]}),
        ] {
            let said = said(&spec);
            assert_eq!(said.len(), 1, "{spec}: {said:?}");
            assert!(said[0].contains("must be between 0 and 2147483647, inclusive"));
        }
    }
    assert!(
        said(&json!({"securityContext": {"runAsUser": 0, "fsGroup": 2_147_483_647}})).is_empty()
    );
}

#[test]
fn paths_and_modes_stay_inside() {
    let item = |path: &str| json!({"volumes": [{"name": "v", "configMap": {"items": [{"key": "a", "path": path}]}}]});
    let token = |path: &str| json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": path}}]}}]});
    let mount = |field: &str, path: &str| json!({"containers": [{"volumeMounts": [{"name": "v", "mountPath": "/x", field: path}]}]});
    for (spec, words) in [
        (item("../x"), "must not contain '..'"),
        (item("a/../../x"), "must not contain '..'"),
        (item("..data/x"), "must not start with '..'"),
        (item("/etc/x"), "must be a relative path"),
        (token("../x"), "must not contain '..'"),
        (mount("subPath", "../x"), "must not contain '..'"),
        (mount("subPath", "/x"), "must be a relative path"),
        (mount("subPathExpr", "$(A)/.."), "must not contain '..'"),
        (
            json!({"volumes": [{"name": "v", "secret": {"defaultMode": 0o4755}}]}),
            "between 0 and 0777",
        ),
        (
            json!({"volumes": [{"name": "v", "projected": {"defaultMode": -1}}]}),
            "between 0 and 0777",
        ),
    ] {
        let said = said(&spec);
        assert!(
            said.iter().any(|one| one.contains(words)),
            "{spec}: {said:?}"
        );
    }
    for fine in [
        item("a/b..c"),
        item("x..y"),
        mount("subPath", "a/b"),
        mount("subPath", ""),
    ] {
        assert!(said(&fine).is_empty(), "{fine}: {:?}", said(&fine));
    }
}
