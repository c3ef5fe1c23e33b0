//! What kubectl looks for.

use serde_json::{Map, Value, json};

use super::*;

fn builtin(group: &str, version: &str, kind: &str) -> Option<(String, Map<String, Value>)> {
    let metadata = json!({"type": "object", "properties": {"labels": {"type": "object"}}});
    let name = match (group, kind) {
        ("", "Pod" | "Namespace") => format!("io.k8s.api.core.{version}.{kind}"),
        _ => return None,
    };
    let root = json!({"description": "A pod.", "type": "object", "properties": {
        "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "description": "Meta."},
        "spec": {"$ref": "#/$defs/io.k8s.api.core.v1.PodSpec"}
    }});
    let spec = json!({"type": "object", "properties": {"containers": {"type": "array", "items": {"$ref": "#/$defs/x.Container"}}}});
    let definitions = [
        (name.clone(), root),
        ("io.k8s.api.core.v1.PodSpec".to_owned(), spec),
        (
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".to_owned(),
            metadata,
        ),
    ];
    Some((name, definitions.into_iter().collect()))
}

fn parsed(group: &str, version: &str, served: &[Served<'_>]) -> Value {
    serde_json::from_slice(&document(group, version, served, &builtin)).unwrap()
}

const POD: Served<'static> = Served {
    kind: "Pod",
    plural: "pods",
    namespaced: true,
    subresources: &["status", "log"],
    schema: None,
};

#[test]
fn a_built_in_kind_has_what_apply_and_explain_ask_for() {
    let document = parsed("", "v1", &[POD]);
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "", "version": "v1", "kind": "Pod"})
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    );
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_some()
    );
    let schemas = &document["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(
        pod["properties"]["metadata"],
        json!({"description": "Meta.", "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]})
    );
    assert_eq!(
        pod["properties"]["spec"],
        json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"})
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
}

#[test]
fn a_custom_resource_has_its_schema_and_the_metadata() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "description": "Wanted."}}});
    let service = Served {
        kind: "Service",
        plural: "services",
        namespaced: true,
        subresources: &["status"],
        schema: Some(&schema),
    };
    let document = parsed("serving.knative.dev", "v1", &[service]);
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["dev.knative.serving.v1.Service"]["properties"]["spec"]["description"],
        "Wanted."
    );
    assert!(
        schemas
            .get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
            .is_some()
    );
    let patch = &document["paths"]["/apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}"]
        ["patch"];
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_none()
    );
    assert_eq!(
        patch["x-kubernetes-group-version-kind"]["group"],
        "serving.knative.dev"
    );
}

#[test]
fn the_index_carries_a_hash_that_follows_the_schemas() {
    let one = json!({"type": "object"});
    let other = json!({"type": "object", "properties": {"a": {}}});
    let print = |schema| {
        fingerprint(
            "x",
            "v1",
            &[Served {
                kind: "X",
                plural: "xs",
                namespaced: false,
                subresources: &[],
                schema: Some(schema),
            }],
        )
    };
    assert_ne!(print(&one), print(&other));
    assert_eq!(print(&one), print(&one));
    let index = index(&[("apis/x/v1".to_owned(), "AB".to_owned())]);
    assert_eq!(
        index["paths"]["apis/x/v1"]["serverRelativeURL"],
        "/openapi/v3/apis/x/v1?hash=AB"
    );
}
