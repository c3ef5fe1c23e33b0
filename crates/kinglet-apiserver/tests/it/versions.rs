//! Several versions of a custom kind: stored in one, served in each.

use std::sync::Arc;

use futures_util::StreamExt as _;
use http::Method;
use http_body_util::BodyExt as _;
use kinglet_apiserver::Options;
use serde_json::{Value, json};

use crate::test_server::{Reply, TestServer};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/birds.example.com";

pub(crate) fn birds(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/birds")
}

pub(crate) fn version(name: &str, field: &str, storage: bool) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": field, "type": "string", "jsonPath": format!(".spec.{field}")}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "string"}, "eggs": {"type": "integer"}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
}

/// Birds whose `song` of v1 is the `tune` of v2, which is the stored version.
pub(crate) fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "birds.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"kind": "Bird", "plural": "birds"},
        "versions": [version("v1", "song", false), version("v2", "tune", true)]}})
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "specifications read best as values"
)]
pub(crate) fn bird(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Bird", "metadata": {"name": name}, "spec": spec})
}

/// What converts the birds.
#[expect(clippy::unnecessary_wraps, reason = "as the server takes it")]
pub(crate) fn convert(object: &Value, to: &str) -> Result<Value, String> {
    let (from, field) = if to == "v1" {
        ("tune", "song")
    } else {
        ("song", "tune")
    };
    let mut out = object.clone();
    out["apiVersion"] = format!("example.com/{to}").into();
    if let Some(spec) = out.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(value) = spec.remove(from)
    {
        spec.insert(field.to_owned(), value);
    }
    Ok(out)
}

/// What is done to a definition's specification.
type Change = Box<dyn Fn(&mut Value)>;

async fn with_function() -> TestServer {
    let server = TestServer::with(Options {
        conversions: vec![("birds.example.com".to_owned(), Arc::new(convert))],
        ..Options::default()
    })
    .await;
    let made = server.post(DEFINITIONS, definition()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    server
}

/// The next lines of a watch, as (type, object).
pub(crate) async fn watched(server: &TestServer, path: &str, count: usize) -> Vec<(String, Value)> {
    let response = server
        .raw(&server.user, Method::GET, path, &[], Vec::new())
        .await;
    let mut frames = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.lines().count() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), frames.next()).await;
        let Some(Ok(bytes)) = next.expect("an event in time") else {
            break;
        };
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text.lines()
        .map(|line| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            (
                event["type"].as_str().unwrap().to_owned(),
                event["object"].take(),
            )
        })
        .collect()
}

async fn apply(server: &TestServer, manager: &str, object: &Value) -> Reply {
    let version = object["apiVersion"]
        .as_str()
        .unwrap()
        .replace("example.com/", "");
    let path = format!(
        "{}/{}?fieldManager={manager}",
        birds(&version),
        object["metadata"]["name"].as_str().unwrap()
    );
    server
        .patch(&path, "apply-patch+yaml", object.clone())
        .await
}

#[tokio::test]
async fn an_object_is_read_listed_watched_and_changed_in_any_served_version() {
    let server = with_function().await;
    let made = server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    assert_eq!(
        (made.code, &made.body["spec"], &made.body["apiVersion"]),
        (201, &json!({"song": "la"}), &json!("example.com/v1")),
        "{}",
        made.text
    );
    let read = server.get(&format!("{}/wren", birds("v2"))).await.body;
    assert_eq!(
        (&read["spec"], &read["apiVersion"], &read["metadata"]["uid"]),
        (
            &json!({"tune": "la"}),
            &json!("example.com/v2"),
            &made.body["metadata"]["uid"]
        )
    );
    let list = server.get(&birds("v1")).await.body;
    assert_eq!(
        (&list["items"][0]["spec"], &list["apiVersion"]),
        (&json!({"song": "la"}), &json!("example.com/v1"))
    );
    for (version, column) in [("v1", "song"), ("v2", "tune")] {
        let table = server.table(&birds(version)).await.body;
        assert_eq!(table["columnDefinitions"][1]["name"], column);
        assert_eq!(table["rows"][0]["cells"], json!(["wren", "la"]));
    }
    let seen = watched(&server, &format!("{}?watch=1", birds("v1")), 1).await;
    assert_eq!(seen[0].1["spec"], json!({"song": "la"}));
    let patched = server
        .patch(
            &format!("{}/wren", birds("v2")),
            "merge-patch+json",
            json!({"spec": {"tune": "lu"}}),
        )
        .await;
    assert_eq!(
        (
            &patched.body["spec"],
            &patched.body["metadata"]["generation"]
        ),
        (&json!({"tune": "lu"}), &json!(2))
    );
    let status = server
        .patch(
            &format!("{}/wren/status", birds("v1")),
            "merge-patch+json",
            json!({"status": {"loud": true}}),
        )
        .await;
    assert_eq!(status.code, 200, "{}", status.text);
    let mut v1 = server.get(&format!("{}/wren", birds("v1"))).await.body;
    assert_eq!(
        (&v1["spec"], &v1["status"], &v1["metadata"]["generation"]),
        (&json!({"song": "lu"}), &json!({"loud": true}), &json!(2))
    );
    v1["spec"]["song"] = "lo".into();
    let put = server.put(&format!("{}/wren", birds("v1")), v1).await;
    assert_eq!(put.body["spec"], json!({"song": "lo"}), "{}", put.text);
    let from = format!("{}?watch=1&resourceVersion=1", birds("v1"));
    let tail: Vec<Value> = watched(&server, &from, 4)
        .await
        .into_iter()
        .map(|(kind, object)| json!([kind, object["spec"]["song"]]))
        .collect();
    assert_eq!(
        Value::Array(tail),
        json!([
            ["ADDED", "la"],
            ["MODIFIED", "lu"],
            ["MODIFIED", "lu"],
            ["MODIFIED", "lo"]
        ])
    );
    let wrong = server
        .post(&birds("v2"), bird("v1", "x", json!({"song": "la"})))
        .await;
    assert_eq!(wrong.code, 400, "{}", wrong.text);
    assert_eq!(
        server.delete(&format!("{}/wren", birds("v1"))).await.code,
        200
    );
}

#[tokio::test]
async fn managers_of_different_versions_see_each_others_fields() {
    let server = with_function().await;
    let one = apply(&server, "one", &bird("v1", "wren", json!({"song": "la"}))).await;
    assert_eq!(one.code, 201, "{}", one.text);
    let clash = apply(&server, "two", &bird("v2", "wren", json!({"tune": "lu"}))).await;
    assert_eq!(clash.code, 409, "{}", clash.text);
    assert!(clash.text.contains(".spec.song"), "{}", clash.text);
    let two = apply(&server, "two", &bird("v2", "wren", json!({"eggs": 2}))).await;
    let listed = two.body["metadata"]["managedFields"].as_array().unwrap();
    let entries: Vec<Value> = listed
        .iter()
        .map(|entry| json!([entry["manager"], entry["apiVersion"]]))
        .collect();
    assert_eq!(
        Value::Array(entries),
        json!([["one", "example.com/v1"], ["two", "example.com/v2"]])
    );
    let less = apply(&server, "one", &bird("v2", "wren", json!({}))).await;
    assert_eq!(less.body["spec"], json!({"eggs": 2}), "{}", less.text);
}

#[tokio::test]
async fn without_a_strategy_only_the_version_changes_and_storage_moves_by_writing() {
    let server = TestServer::new().await;
    let mut plain = definition();
    plain["spec"]["versions"] = json!([version("v1", "song", true), version("v2", "song", false)]);
    server.post(DEFINITIONS, plain).await;
    server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    let mut moved = server.get(DEFINITION).await.body;
    moved["spec"]["versions"][0]["storage"] = false.into();
    moved["spec"]["versions"][1]["storage"] = true.into();
    let moved = server.put(DEFINITION, moved).await;
    assert_eq!(
        moved.body["status"]["storedVersions"],
        json!(["v1", "v2"]),
        "{}",
        moved.text
    );
    // Neither the version nor its place in the list goes while an object is stored in it.
    let mut less = moved.body.clone();
    less["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let refused = server.put(DEFINITION, less).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.text.contains("status.storedVersions[0]: Invalid value: \\\"v1\\\": missing from spec.versions; v1 was previously a storage version"),
        "{}",
        refused.text
    );
    let drop_v1 = json!({"status": {"storedVersions": ["v2"]}});
    let status = format!("{DEFINITION}/status");
    let refused = server
        .patch(&status, "merge-patch+json", drop_v1.clone())
        .await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.text.contains("1 objects are stored in it"),
        "{}",
        refused.text
    );
    let refused = server
        .patch(
            &status,
            "merge-patch+json",
            json!({"status": {"storedVersions": ["v1"]}}),
        )
        .await;
    assert!(
        refused.text.contains("must have the storage version v2"),
        "{}",
        refused.text
    );
    let same = server.get(&format!("{}/wren", birds("v1"))).await.body;
    let before = same["metadata"]["resourceVersion"].clone();
    let written = server.put(&format!("{}/wren", birds("v1")), same).await;
    assert_ne!(written.body["metadata"]["resourceVersion"], before);
    assert_eq!(written.body["metadata"]["generation"], 1);
    let stored = server.api.store().get("example.com/birds/default/wren");
    let stored: Value = serde_json::from_slice(&stored.unwrap().value).unwrap();
    assert_eq!(stored["apiVersion"], "example.com/v2");
    let dropped = server.patch(&status, "merge-patch+json", drop_v1).await;
    assert_eq!(dropped.code, 200, "{}", dropped.text);
    let mut less = dropped.body;
    less["spec"]["versions"].as_array_mut().unwrap().remove(0);
    assert_eq!(server.put(DEFINITION, less).await.code, 200);
    assert_eq!(server.get(&birds("v1")).await.code, 404);
    let left = server.get(&format!("{}/wren", birds("v2"))).await.body;
    assert_eq!(left["spec"], json!({"song": "la"}));
}

#[tokio::test]
async fn discovery_and_warnings_speak_for_each_version() {
    let server = TestServer::new().await;
    let mut several = definition();
    let old = |name: &str| {
        let mut version = version(name, "song", false);
        version["deprecated"] = true.into();
        version["subresources"] = json!({});
        version
    };
    let mut hidden = version("v3", "song", false);
    hidden["served"] = false.into();
    let mut worded = old("v1beta2");
    worded["deprecationWarning"] = "sing no more".into();
    several["spec"]["versions"] = json!([
        old("v1alpha1"),
        worded,
        version("v1", "song", true),
        hidden,
        old("v1beta10")
    ]);
    let made = server.post(DEFINITIONS, several).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let group = server.get("/apis/example.com").await.body;
    let order: Vec<&str> = group["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["v1", "v1beta10", "v1beta2", "v1alpha1"]);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = |body: &Value| -> Vec<String> {
        body["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|resource| resource["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let hash = |body: &Value| body["resources"][0]["storageVersionHash"].clone();
    let (v1, beta) = (
        server.get("/apis/example.com/v1").await.body,
        server.get("/apis/example.com/v1beta2").await.body,
    );
    assert_eq!(resources(&v1), ["birds", "birds/status"]);
    assert_eq!(resources(&beta), ["birds"]);
    assert_eq!(hash(&v1), hash(&beta));
    assert_eq!(server.get("/apis/example.com/v3").await.code, 404);
    assert_eq!(server.get(&birds("v3")).await.code, 404);
    let reply = server.get(&birds("v1beta2")).await;
    assert_eq!(reply.warnings, ["299 - \"sing no more\""]);
    let reply = server.get(&birds("v1alpha1")).await;
    assert_eq!(
        reply.warnings,
        ["299 - \"example.com/v1alpha1 Bird is deprecated\""]
    );
    assert!(server.get(&birds("v1")).await.warnings.is_empty());
    let openapi = server
        .get("/openapi/v3/apis/example.com/v1beta2")
        .await
        .body;
    assert!(
        openapi["components"]["schemas"]["com.example.v1beta2.Bird"].is_object(),
        "{openapi}"
    );
    let v2 = server.get("/openapi/v2").await.body;
    assert!(
        v2["definitions"]["com.example.v1alpha1.Bird"].is_object()
            && v2["definitions"]["com.example.v1.Bird"].is_object()
    );
}

#[tokio::test]
async fn a_watch_ends_when_its_version_is_no_longer_served() {
    let server = with_function().await;
    server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    let response = server
        .raw(
            &server.user,
            Method::GET,
            &format!("{}?watch=1", birds("v1")),
            &[],
            Vec::new(),
        )
        .await;
    let mut changed = server.get(DEFINITION).await.body;
    changed["spec"]["versions"][0]["served"] = false.into();
    assert_eq!(server.put(DEFINITION, changed).await.code, 200);
    let all = tokio::time::timeout(
        std::time::Duration::from_secs(60),
        response.into_body().collect(),
    );
    let text = all.await.expect("the watch ends").unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&text).lines().count(), 1);
}

#[tokio::test]
async fn wrong_versions_and_conversions_are_refused_in_the_words_of_kubernetes() {
    let server = TestServer::new().await;
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut wrong = definition();
        change(&mut wrong["spec"]);
        let server = &server;
        async move {
            let path = format!("{DEFINITIONS}?dryRun=All");
            server.post(&path, wrong).await
        }
    };
    let hook = |config: Value| move |spec: &mut Value| spec["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": config.clone(), "conversionReviewVersions": ["v1"]}});
    let reviews = |list: Value| move |spec: &mut Value| spec["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a.b/c"}, "conversionReviewVersions": list.clone()}});
    let warning = |text: Value, deprecated: bool| {
        move |spec: &mut Value| {
            spec["versions"][0]["deprecated"] = deprecated.into();
            spec["versions"][0]["deprecationWarning"] = text.clone();
        }
    };
    let client = "spec.conversion.webhookClientConfig";
    let versions = "spec.conversion.conversionReviewVersions";
    let rows: Vec<(Change, String)> = vec![
        (Box::new(|spec| spec["conversion"] = json!({"strategy": "X"})), "spec.conversion.strategy: Unsupported value: \"X\": supported values: \"None\", \"Webhook\"".to_owned()),
        (Box::new(|spec| spec["conversion"] = json!({"strategy": "Webhook"})), format!("[{client}: Required value: required when strategy is set to Webhook, {versions}: Required value]")),
        (Box::new(|spec| spec["conversion"] = json!({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a.b/c"}, "conversionReviewVersions": ["v1"]}})), format!("[{client}: Forbidden: should not be set when strategy is not set to Webhook, {versions}: Forbidden: should not be set when strategy is not set to Webhook]")),
        (Box::new(hook(json!({}))), format!("{client}: Required value: exactly one of url or service is required")),
        (Box::new(hook(json!({"url": "http://a.b/c"}))), format!("{client}.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]")),
        (Box::new(hook(json!({"url": "https:///c"}))), format!("{client}.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]")),
        (Box::new(hook(json!({"url": "https://u:p@a.b/c"}))), format!("{client}.url: Invalid value: \"u:p\": user information is not permitted in the URL")),
        (Box::new(hook(json!({"url": "https://a.b/c?x=1"}))), format!("{client}.url: Invalid value: \"x=1\": query parameters are not permitted in the URL")),
        (Box::new(hook(json!({"url": "https://a.b/c#x"}))), format!("{client}.url: Invalid value: \"x\": fragments are not permitted in the URL")),
        (Box::new(hook(json!({"service": {"namespace": "d", "name": "s", "port": 70000}}))), format!("{client}.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive")),
        (Box::new(hook(json!({"service": {"namespace": "d", "name": "s", "path": "/x//y"}}))), format!("{client}.service.path: Invalid value: \"/x//y\": segment[1] may not be empty")),
        (Box::new(hook(json!({"service": {"name": "s"}}))), format!("{client}.service.namespace: Required value")),
        (Box::new(reviews(json!(["v9"]))), format!("{versions}: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1")),
        (Box::new(reviews(json!(["v1", "v1"]))), format!("{versions}[1]: Invalid value: \"v1\": duplicate version")),
        (Box::new(warning("x".into(), false)), "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions".to_owned()),
        (Box::new(warning("".into(), true)), "spec.versions[0].deprecationWarning: Invalid value: \"\": must not be an empty string".to_owned()),
        (Box::new(|spec| spec["versions"][1]["name"] = "v1".into()), "must contain unique version names".to_owned()),
    ];
    for (change, wanted) in rows {
        let reply = refusal(&*change).await;
        assert_eq!(reply.code, 422, "{wanted}: {}", reply.text);
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.contains(&wanted), "{message}\nand not\n{wanted}");
    }
    let good = refusal(&hook(json!({"service": {"namespace": "d", "name": "s"}}))).await;
    assert_eq!(
        (
            good.code,
            &good.body["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"]
        ),
        (201, &json!(443)),
        "{}",
        good.text
    );
}
