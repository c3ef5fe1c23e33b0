//! Custom resources: defined, served, printed, removed; and the injected admission.

use std::sync::Arc;

use http::Method;
use kinglet_apiserver::{Admission, AdmissionRequest, Denied, Operation, Options};
use serde_json::{Value, json};

use crate::test_server::TestServer;

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "birds.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"kind": "Bird", "plural": "birds", "singular": "bird", "shortNames": ["bd"], "categories": ["all"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.eggs", "statusReplicasPath": ".status.eggs"}},
             "additionalPrinterColumns": [
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
                {"name": "Eggs", "type": "integer", "jsonPath": ".spec.eggs"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
             "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"eggs": {"type": "integer", "default": 2, "minimum": 0}, "song": {"type": "string"}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}},
            {"name": "v1alpha1", "served": true, "storage": false,
             "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BIRDS: &str = "/apis/example.com/v1/namespaces/default/birds";

fn bird(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Bird", "metadata": {"name": name}, "spec": {"song": "la"}})
}

#[tokio::test]
async fn a_definition_is_served_at_once() {
    let server = TestServer::new().await;
    assert_eq!(server.get(BIRDS).await.code, 404);
    let made = server.post(DEFINITIONS, definition()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let conditions = made.body["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    );
    assert_eq!(made.body["spec"]["names"]["listKind"], "BirdList");
    let made = server.post(BIRDS, bird("wren")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(
        (
            &made.body["spec"]["eggs"],
            &made.body["metadata"]["generation"]
        ),
        (&json!(2), &json!(1))
    );
    let status = server
        .patch(&format!("{BIRDS}/wren/status"), "merge-patch+json", json!({"status": {"eggs": 1, "conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"eggs": 7}}))
        .await;
    assert_eq!(
        (
            &status.body["spec"]["eggs"],
            &status.body["metadata"]["generation"]
        ),
        (&json!(2), &json!(1)),
        "{}",
        status.text
    );
    let table = server.table(BIRDS).await.body;
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("wren"), json!("True"), json!(2)]
    );
    assert_eq!(table["columnDefinitions"][1]["name"], "Ready");
    let scaled = server
        .patch(
            &format!("{BIRDS}/wren/scale"),
            "merge-patch+json",
            json!({"spec": {"replicas": 4}}),
        )
        .await;
    assert_eq!(
        (
            &scaled.body["spec"]["replicas"],
            &scaled.body["status"]["replicas"]
        ),
        (&json!(4), &json!(1)),
        "{}",
        scaled.text
    );
    let other = server
        .get("/apis/example.com/v1alpha1/namespaces/default/birds/wren")
        .await
        .body;
    assert_eq!(
        (&other["apiVersion"], &other["spec"]["eggs"]),
        (&json!("example.com/v1alpha1"), &json!(4))
    );
    let unversioned = server.put(&format!("{BIRDS}/wren"), bird("wren")).await;
    assert_eq!(unversioned.code, 422);
    assert!(
        unversioned.text.contains(
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        )
    );
    let wrong = server.post(BIRDS, json!({"apiVersion": "example.com/v1", "kind": "Bird", "metadata": {"name": "x"}, "spec": {"eggs": -1}})).await;
    assert_eq!(wrong.code, 422, "{}", wrong.text);
    let strict = server
        .post(&format!("{BIRDS}?fieldValidation=Strict"), {
            let mut b = bird("y");
            b["spec"]["nest"] = 1.into();
            b
        })
        .await;
    assert_eq!(strict.code, 400, "{}", strict.text);
    assert!(
        strict.text.contains("unknown field \\\"spec.nest\\\""),
        "{}",
        strict.text
    );
    let protobuf = server
        .ask(
            Method::POST,
            BIRDS,
            &[("content-type", "application/vnd.kubernetes.protobuf")],
            b"k8s\0".to_vec(),
        )
        .await;
    assert_eq!(protobuf.code, 415);
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let server = TestServer::new().await;
    server.post(DEFINITIONS, definition()).await;
    server.post(BIRDS, bird("wren")).await;
    let mut held = bird("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(BIRDS, held).await;
    let path = format!("{DEFINITIONS}/birds.example.com");
    server.delete(&path).await;
    let going = server.get(&path).await.body;
    assert!(
        going["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "Terminating"),
        "{going}"
    );
    assert_eq!(server.get(&format!("{BIRDS}/wren")).await.code, 404);
    server
        .patch(
            &format!("{BIRDS}/held"),
            "merge-patch+json",
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    assert_eq!(server.get(&path).await.code, 404);
    assert_eq!(server.get(BIRDS).await.code, 404);
}

#[tokio::test]
async fn a_wrong_definition_is_refused() {
    let server = TestServer::new().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = "other.example.com".into();
    wrong["spec"]["versions"][0]["storage"] = false.into();
    let refused = server.post(DEFINITIONS, wrong).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.text.contains("must be spec.names.plural")
            && refused
                .text
                .contains("exactly one version marked as storage version")
    );
    server.api.install(definition()).await.unwrap();
    let mut changed = definition();
    changed["spec"]["names"]["shortNames"] = json!(["bb"]);
    server.api.install(changed).await.unwrap();
    let group = server.get("/apis/example.com/v1").await.body;
    assert_eq!(
        group["resources"][0]["shortNames"],
        json!(["bb"]),
        "{group}"
    );
}

struct Rules;

impl Admission for Rules {
    fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        if request.kind != "Bird" {
            return Ok(Vec::new());
        }
        if request.operation == Operation::Create {
            request.object["metadata"]["annotations"]["creator"] = request.user.name.clone().into();
        }
        if request.name == "cuckoo" {
            return Err(Denied {
                code: 400,
                message: "admission webhook \"rules\" denied the request: no cuckoos".to_owned(),
                warnings: vec!["cuckoos are loud".to_owned()],
            });
        }
        Ok(vec!["birds are fragile".to_owned()])
    }
}

#[tokio::test]
async fn admission_changes_warns_and_denies() {
    let server = TestServer::with(Options {
        admission: Some(Arc::new(Rules)),
        ..Options::default()
    })
    .await;
    server.post(DEFINITIONS, definition()).await;
    let made = server.post(BIRDS, bird("wren")).await;
    assert_eq!(
        made.body["metadata"]["annotations"]["creator"], "admin",
        "{}",
        made.text
    );
    assert_eq!(made.warnings, ["299 - \"birds are fragile\""]);
    let denied = server.post(BIRDS, bird("cuckoo")).await;
    assert_eq!(
        (denied.code, &denied.body["message"]),
        (
            400,
            &json!("admission webhook \"rules\" denied the request: no cuckoos")
        )
    );
    assert_eq!(denied.body["reason"], "BadRequest");
    assert_eq!(denied.warnings, ["299 - \"cuckoos are loud\""]);
}
