//! Deleting: grace, finalizers, propagation, namespaces, collections.

use http::Method;
use serde_json::json;

use crate::test_server::{DEPLOYMENTS, MAPS, PODS, TestServer, config_map, deployment, pod};

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = TestServer::new().await;
    let mut map = config_map("a");
    map["metadata"]["finalizers"] = json!(["example.com/wait"]);
    server.post(MAPS, map).await;
    let path = format!("{MAPS}/a");
    let waits = server.delete(&path).await;
    assert_eq!(
        (waits.code, &waits.body["kind"]),
        (200, &json!("ConfigMap")),
        "{}",
        waits.text
    );
    assert!(waits.body["metadata"]["deletionTimestamp"].is_string());
    let more = server
        .patch(
            &path,
            "merge-patch+json",
            json!({"metadata": {"finalizers": ["example.com/wait", "example.com/new"]}}),
        )
        .await;
    assert_eq!(more.code, 422);
    assert!(
        more.text
            .contains("no new finalizers can be added if the object is being deleted")
    );
    let done = server
        .patch(
            &path,
            "merge-patch+json",
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
    assert_eq!(done.code, 200, "{}", done.text);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let server = TestServer::new().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        server.post(DEPLOYMENTS, deployment("d")).await;
        let path = format!("{DEPLOYMENTS}/d");
        let body =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let waits = server
            .ask(
                Method::DELETE,
                &path,
                &[("content-type", "application/json")],
                body.to_string().into_bytes(),
            )
            .await;
        assert_eq!(
            waits.body["metadata"]["finalizers"],
            json!([finalizer]),
            "{}",
            waits.text
        );
        assert_eq!(waits.body["metadata"]["generation"], 2);
        server
            .patch(
                &path,
                "merge-patch+json",
                json!({"metadata": {"finalizers": []}}),
            )
            .await;
        assert_eq!(server.get(&path).await.code, 404);
    }
    server.post(DEPLOYMENTS, deployment("d")).await;
    assert_eq!(
        server
            .delete(&format!("{DEPLOYMENTS}/d?propagationPolicy=Background"))
            .await
            .body["status"],
        "Success"
    );
    assert_eq!(
        server
            .delete(&format!("{DEPLOYMENTS}/d?propagationPolicy=Never"))
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn a_running_pod_gets_its_grace() {
    let server = TestServer::new().await;
    server.post(PODS, pod("p")).await;
    server
        .post(
            &format!("{PODS}/p/binding"),
            json!({"target": {"name": "n"}}),
        )
        .await;
    let path = format!("{PODS}/p");
    let waits = server.delete(&path).await;
    assert_eq!(
        (
            &waits.body["metadata"]["deletionGracePeriodSeconds"],
            &waits.body["metadata"]["generation"]
        ),
        (&json!(30), &json!(2))
    );
    let row = server.table(&path).await.body["rows"][0]["cells"][2].clone();
    assert_eq!(row, "Terminating");
    let shorter = server.delete(&format!("{path}?gracePeriodSeconds=5")).await;
    assert_eq!(shorter.body["metadata"]["deletionGracePeriodSeconds"], 5);
    let gone = server.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!((gone.code, &gone.body["kind"]), (200, &json!("Pod")));
    assert_eq!(server.get(&path).await.code, 404);
    server.post(PODS, pod("q")).await;
    server.delete(&format!("{PODS}/q")).await;
    assert_eq!(
        server.get(&format!("{PODS}/q")).await.code,
        404,
        "nobody runs it, so nobody needs time"
    );
}

#[tokio::test]
async fn preconditions_are_met_or_refused() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let body = json!({"preconditions": {"uid": "other"}})
        .to_string()
        .into_bytes();
    let refused = server
        .ask(
            Method::DELETE,
            &format!("{MAPS}/a"),
            &[("content-type", "application/json")],
            body,
        )
        .await;
    assert_eq!(refused.code, 409);
    assert!(
        refused
            .text
            .contains("Precondition failed: UID in precondition: other")
    );
}

#[tokio::test]
async fn a_namespace_closes_and_is_finalized() {
    let server = TestServer::new().await;
    server.namespace("n").await;
    let made = server.get("/api/v1/namespaces/n").await.body;
    assert_eq!(
        made["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "n"
    );
    assert_eq!(
        (&made["spec"]["finalizers"], &made["status"]["phase"]),
        (&json!(["kubernetes"]), &json!("Active"))
    );
    let going = server.delete("/api/v1/namespaces/n").await;
    assert_eq!(
        going.body["status"]["phase"], "Terminating",
        "{}",
        going.text
    );
    let refused = server
        .post("/api/v1/namespaces/n/configmaps", config_map("a"))
        .await;
    assert_eq!(
        (
            refused.code,
            &refused.body["details"]["causes"][0]["reason"]
        ),
        (403, &json!("NamespaceTerminating")),
        "{}",
        refused.text
    );
    let mut done = going.body.clone();
    done["spec"] = json!({});
    let finalized = server.put("/api/v1/namespaces/n/finalize", done).await;
    assert_eq!(finalized.code, 200, "{}", finalized.text);
    assert_eq!(server.get("/api/v1/namespaces/n").await.code, 404);
    assert_eq!(server.delete("/api/v1/namespaces/default").await.code, 403);
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let server = TestServer::new().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut map = config_map(name);
        map["metadata"]["labels"] = json!({"app": app});
        server.post(MAPS, map).await;
    }
    let gone = server
        .delete(&format!("{MAPS}?labelSelector=app%3Dx"))
        .await;
    assert_eq!(
        (gone.code, gone.body["items"].as_array().map(Vec::len)),
        (200, Some(2)),
        "{}",
        gone.text
    );
    assert_eq!(
        server.get(MAPS).await.body["items"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}
