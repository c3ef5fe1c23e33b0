//! Who may do what: refusals as a table, roles that are made of others, and nobody who hands out more than he has.

use http::Method;
use kinglet_apiserver::{Identity, Options};
use serde_json::{Value, json};

use crate::test_server::{MAPS, Reply, TestServer, config_map, read};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn as_user(
    server: &TestServer,
    user: &Identity,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> Reply {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    read(
        server
            .raw(user, method, path, &[("content-type", media)], bytes)
            .await,
    )
    .await
}

async fn given(server: &TestServer, path: &str, object: Value) {
    let made = server.post(path, object).await;
    assert_eq!(made.code, 201, "{}", made.text);
}

/// `jane` has a role in `default`, and nothing elsewhere.
async fn with_role(rules: Value) -> (TestServer, Identity) {
    let server = TestServer::with(Options::default()).await;
    server.namespace("other").await;
    given(
        &server,
        &format!("{RBAC}/namespaces/default/roles"),
        json!({"metadata": {"name": "r"}, "rules": rules}),
    )
    .await;
    given(
        &server,
        &format!("{RBAC}/namespaces/default/rolebindings"),
        json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]}),
    )
    .await;
    (server, Identity::remote("jane", Vec::new()))
}

#[tokio::test]
async fn what_is_not_granted_is_refused() {
    let (server, jane) = with_role(json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch", "update"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get", "watch"]},
    ]))
    .await;
    given(&server, MAPS, config_map("there")).await;
    let base = "/api/v1/namespaces/default";
    let none = Value::Null;
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fresh"}});
    for (method, path, media, body, code) in [
        ("GET", format!("{base}/configmaps"), "", &none, 200),
        ("GET", format!("{base}/configmaps/there"), "", &none, 200),
        (
            "GET",
            format!("{base}/configmaps?watch=1&timeoutSeconds=1"),
            "",
            &none,
            403,
        ),
        ("DELETE", format!("{base}/configmaps/there"), "", &none, 403),
        ("DELETE", format!("{base}/configmaps"), "", &none, 403),
        (
            "POST",
            format!("{base}/configmaps"),
            "application/json",
            &apply,
            403,
        ),
        // An apply that changes needs `patch`, one that makes needs `create` as well.
        (
            "PATCH",
            format!("{base}/configmaps/there?fieldManager=t"),
            "application/apply-patch+yaml",
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there"}}),
            200,
        ),
        (
            "PATCH",
            format!("{base}/configmaps/fresh?fieldManager=t"),
            "application/apply-patch+yaml",
            &apply,
            403,
        ),
        ("GET", "/api/v1/configmaps".to_owned(), "", &none, 403),
        (
            "GET",
            "/api/v1/namespaces/other/configmaps".to_owned(),
            "",
            &none,
            403,
        ),
        ("GET", format!("{base}/pods/x"), "", &none, 403),
        ("GET", format!("{base}/pods/x/log"), "", &none, 404),
        ("GET", format!("{base}/secrets/mine"), "", &none, 404),
        ("GET", format!("{base}/secrets/yours"), "", &none, 403),
        ("GET", format!("{base}/secrets"), "", &none, 403),
        (
            "POST",
            format!("{base}/serviceaccounts/default/token"),
            "application/json",
            &json!({"spec": {}}),
            403,
        ),
        ("GET", "/metrics".to_owned(), "", &none, 403),
        ("GET", "/apis".to_owned(), "", &none, 200),
        ("GET", "/version".to_owned(), "", &none, 200),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let reply = as_user(&server, &jane, method.clone(), &path, media, body).await;
        assert_eq!(reply.code, code, "{method} {path}: {}", reply.text);
    }
    let anonymous = as_user(
        &server,
        &Identity::anonymous(),
        Method::GET,
        MAPS,
        "",
        &none,
    )
    .await;
    assert_eq!(anonymous.code, 403);
}

#[tokio::test]
async fn nobody_hands_out_more_than_he_has() {
    let (server, jane) = with_role(json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "update", "get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["free"], "verbs": ["bind"]},
    ]))
    .await;
    let (roles, bindings) = (
        format!("{RBAC}/namespaces/default/roles"),
        format!("{RBAC}/namespaces/default/rolebindings"),
    );
    let role = |name: &str, resource: &str| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    given(&server, &roles, role("free", "secrets")).await;
    given(&server, &roles, role("closed", "nodes")).await;
    let binding = |name: &str, kind: &str, to: &str| {
        json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": to},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]})
    };
    for (path, object, code) in [
        (&roles, role("a", "pods"), 201),
        (&roles, role("b", "secrets"), 403),
        (&bindings, binding("c", "Role", "a"), 201),
        (&bindings, binding("d", "Role", "free"), 201),
        (&bindings, binding("e", "Role", "closed"), 403),
        (&bindings, binding("f", "ClusterRole", "cluster-admin"), 403),
        (&bindings, binding("g", "Role", "absent"), 404),
    ] {
        let reply = as_user(
            &server,
            &jane,
            Method::POST,
            path,
            "application/json",
            &object,
        )
        .await;
        assert_eq!(reply.code, code, "{object}: {}", reply.text);
    }
    let refused = as_user(
        &server,
        &jane,
        Method::POST,
        &roles,
        "application/json",
        &role("z", "nodes"),
    )
    .await;
    assert_eq!(
        refused.body["message"],
        "roles.rbac.authorization.k8s.io \"z\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
}

#[tokio::test]
async fn roles_are_made_of_others() {
    let server = TestServer::new().await;
    let roles = format!("{RBAC}/clusterroles");
    given(
        &server,
        &roles,
        json!({"metadata": {"name": "all"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-all": "true"}}]}}),
    )
    .await;
    given(
        &server,
        &roles,
        json!({"metadata": {"name": "some", "labels": {"to-all": "true"}}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-some": "true"}}]}}),
    )
    .await;
    given(
        &server,
        &roles,
        json!({"metadata": {"name": "part", "labels": {"to-some": "true"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
    )
    .await;
    let rules = async || server.get(&format!("{roles}/all")).await.body["rules"].clone();
    assert_eq!(
        rules().await,
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    );
    server.delete(&format!("{roles}/part")).await;
    assert_eq!(rules().await, json!([]));
}

#[tokio::test]
async fn reviews_say_what_is_so() {
    let (server, jane) =
        with_role(json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])).await;
    let reviews = "/apis/authorization.k8s.io/v1";
    let attributes = |verb: &str| json!({"verb": verb, "resource": "pods", "namespace": "default"});
    for (path, spec, code, allowed) in [
        (
            "subjectaccessreviews",
            json!({"user": "jane", "resourceAttributes": attributes("get")}),
            201,
            true,
        ),
        (
            "subjectaccessreviews",
            json!({"user": "jane", "resourceAttributes": attributes("delete")}),
            201,
            false,
        ),
        (
            "subjectaccessreviews",
            json!({"groups": ["system:masters"], "resourceAttributes": attributes("delete")}),
            201,
            true,
        ),
        (
            "subjectaccessreviews",
            json!({"resourceAttributes": attributes("get")}),
            422,
            false,
        ),
        ("subjectaccessreviews", json!({"user": "jane"}), 422, false),
        (
            "namespaces/default/localsubjectaccessreviews",
            json!({"user": "jane", "resourceAttributes": attributes("get")}),
            201,
            true,
        ),
        (
            "namespaces/other/localsubjectaccessreviews",
            json!({"user": "jane", "resourceAttributes": attributes("get")}),
            422,
            false,
        ),
        (
            "subjectaccessreviews",
            json!({"user": "jane", "nonResourceAttributes": {"path": "/apis", "verb": "get"}}),
            201,
            true,
        ),
        (
            "subjectaccessreviews",
            json!({"user": "jane", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}),
            201,
            false,
        ),
    ] {
        let reply = server
            .post(&format!("{reviews}/{path}"), json!({"spec": spec}))
            .await;
        assert_eq!(reply.code, code, "{spec}: {}", reply.text);
        assert_eq!(
            reply.body["status"]["allowed"] == true,
            allowed,
            "{spec}: {}",
            reply.text
        );
    }
    let rules = as_user(
        &server,
        &jane,
        Method::POST,
        &format!("{reviews}/selfsubjectrulesreviews"),
        "application/json",
        &json!({"spec": {"namespace": "default"}}),
    )
    .await;
    let listed = rules.body["status"]["resourceRules"].as_array().unwrap();
    assert!(
        listed.contains(&json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})),
        "{}",
        rules.text
    );
}

/// A WebSocket begins with a GET, and those who may look at everything may not run anything.
#[tokio::test]
async fn sessions_with_pods_need_the_right_to_create() {
    for (verbs, code, word) in [
        (json!(["get"]), 403, "cannot create resource \\\"pods/"),
        (json!(["create"]), 403, "cannot get resource \\\"pods/"),
        (json!(["get", "create"]), 404, "not found"),
    ] {
        let (server, jane) = with_role(json!([
            {"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": verbs},
        ]))
        .await;
        for session in ["exec?command=id&stdout=1", "attach?stdout=1", "portforward"] {
            let path = format!("/api/v1/namespaces/default/pods/there/{session}");
            let reply = as_user(&server, &jane, Method::GET, &path, "", &Value::Null).await;
            assert_eq!(reply.code, code, "{verbs} {session}: {}", reply.text);
            assert!(
                reply.text.contains(word),
                "{verbs} {session}: {}",
                reply.text
            );
        }
    }
}
