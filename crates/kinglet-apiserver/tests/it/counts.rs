//! Quotas of objects, budgets of disruptions, tokens in Secrets.

use std::sync::Arc;

use kinglet_apiserver::{Options, Signer};
use serde_json::{Value, json};

use crate::test_server::{MAPS, PODS, TestServer, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[tokio::test]
async fn a_quota_counts_objects_of_any_kind() {
    let server = TestServer::new().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "1", "count/secrets": "1", "count/deployments.apps": "0", "services.nodeports": "1"}}});
    assert_eq!(server.post(QUOTAS, quota).await.code, 201);
    assert_eq!(server.post(MAPS, config_map("a")).await.code, 201);
    let refused = server.post(MAPS, config_map("b")).await;
    assert_eq!(
        (refused.code, refused.body["message"].as_str().unwrap()),
        (
            403,
            "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"
        )
    );
    let secret = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(server.post(SECRETS, secret("a")).await.code, 201);
    assert_eq!(server.post(SECRETS, secret("b")).await.code, 403);
    let deployment = server
        .post(
            crate::test_server::DEPLOYMENTS,
            crate::test_server::deployment("d"),
        )
        .await;
    assert_eq!(deployment.code, 403, "{}", deployment.text);
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(server.post(services, service("a")).await.code, 201);
    assert_eq!(server.post(services, service("b")).await.code, 403);
    server.delete(&format!("{MAPS}/a")).await;
    let shown = server.get(&format!("{QUOTAS}/q")).await;
    assert_eq!(
        shown.body["status"]["used"],
        json!({"configmaps": "0", "count/deployments.apps": "0", "count/secrets": "1", "services.nodeports": "1"})
    );
    assert_eq!(server.post(MAPS, config_map("b")).await.code, 201);
}

async fn ready_pod(server: &TestServer, name: &str) {
    let mut object = pod(name);
    object["metadata"]["labels"] = json!({"app": "web"});
    object["spec"]["nodeName"] = "here".into();
    assert_eq!(server.post(PODS, object).await.code, 201);
    let status = server
        .patch(
            &format!("{PODS}/{name}/status"),
            "merge-patch+json",
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
        )
        .await;
    assert_eq!(status.code, 200, "{}", status.text);
}

#[tokio::test]
async fn a_budget_says_how_many_may_go_and_holds_the_rest() {
    let server = TestServer::new().await;
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(server.post(path, budget).await.code, 201);
    ready_pod(&server, "one").await;
    ready_pod(&server, "two").await;
    let status = server.get(&format!("{path}/b")).await.body["status"].clone();
    assert_eq!(
        (
            &status["disruptionsAllowed"],
            &status["expectedPods"],
            &status["currentHealthy"]
        ),
        (&json!(1), &json!(2), &json!(2)),
        "{status}"
    );
    let evict = async |name: &str| {
        server
            .post(
                &format!("{PODS}/{name}/eviction"),
                json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}),
            )
            .await
    };
    let first = evict("one").await;
    assert_eq!(first.code, 201, "{}", first.text);
    let second = evict("two").await;
    assert_eq!(second.code, 429, "{}", second.text);
    assert_eq!(
        second.body["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
}

#[tokio::test]
async fn a_token_secret_has_its_token_which_dies_with_it() {
    let signer = Signer::from_pem(&Signer::generate().unwrap()).unwrap();
    let server = TestServer::with(Options {
        signer: Some(Arc::new(signer)),
        ..Options::default()
    })
    .await;
    let secret = |account: Value| json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": account}}, "type": "kubernetes.io/service-account-token"});
    assert_eq!(
        server.post(SECRETS, secret("absent".into())).await.code,
        422
    );
    let made = server.post(SECRETS, secret("default".into())).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let decode = |text: &Value| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap())
            .unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(decode(&made.body["data"]["namespace"]), "default");
    let token = decode(&made.body["data"]["token"]);
    let review = async || {
        server
            .post(
                "/apis/authentication.k8s.io/v1/tokenreviews",
                json!({"spec": {"token": token}}),
            )
            .await
            .body["status"]
            .clone()
    };
    assert_eq!(
        review().await["user"]["username"],
        "system:serviceaccount:default:default"
    );
    let request = |kind: &str| json!({"spec": {"boundObjectRef": {"kind": kind, "name": "t"}}});
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = server.post(tokens, request("Secret")).await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    assert_eq!(server.post(tokens, request("Node")).await.code, 400);
    server.delete(&format!("{SECRETS}/t")).await;
    assert!(review().await.get("authenticated").is_none());
}

#[tokio::test]
async fn pods_without_a_class_have_the_default_one() {
    let server = TestServer::new().await;
    let class = json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true});
    assert_eq!(
        server
            .post("/apis/scheduling.k8s.io/v1/priorityclasses", class)
            .await
            .code,
        201
    );
    let made = server.post(PODS, pod("a")).await;
    assert_eq!(
        (
            &made.body["spec"]["priorityClassName"],
            &made.body["spec"]["priority"]
        ),
        (&json!("usual"), &json!(7)),
        "{}",
        made.text
    );
}
