//! Small requests that would cost much.

use std::time::Duration;

use http::Method;
use kinglet_apiserver::{ApiServer, Identity, Options};
use kinglet_store::Store;
use serde_json::json;
use tower::Service as _;

use crate::test_server::{MAPS, TestServer, config_map};

#[tokio::test]
async fn deep_and_large_inputs_are_refused() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let deep = |open: &str, close: &str| {
        let (left, right) = (open.repeat(50_000), close.repeat(50_000));
        format!("{{\"metadata\": {{\"name\": \"b\"}}, \"data\": {left}{right}}}").into_bytes()
    };
    for media in ["application/json", "application/yaml"] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let reply = server
                .ask(
                    Method::POST,
                    MAPS,
                    &[("content-type", media)],
                    deep(open, close),
                )
                .await;
            assert_eq!(reply.code, 400, "{media} {open}: {:.200}", reply.text);
        }
    }
    let indented: String = (0..2000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    let reply = server
        .ask(
            Method::POST,
            MAPS,
            &[("content-type", "application/yaml")],
            indented.into_bytes(),
        )
        .await;
    assert_eq!(reply.code, 400, "{:.200}", reply.text);
    for media in [
        "merge-patch+json",
        "strategic-merge-patch+json",
        "apply-patch+yaml",
        "json-patch+json",
    ] {
        let reply = server
            .ask(
                Method::PATCH,
                &format!("{MAPS}/a?fieldManager=t"),
                &[("content-type", format!("application/{media}").as_str())],
                deep("{\"a\":", "}"),
            )
            .await;
        assert!(
            matches!(reply.code, 400 | 413 | 422),
            "{media}: {} {:.200}",
            reply.code,
            reply.text
        );
    }
    // Bombs of anchors.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 0..9 {
        let item = format!("*a{n}");
        bomb.push_str(&format!(
            "a{}: &a{} [{}]\n",
            n + 1,
            n + 1,
            [item.as_str(); 10].join(", ")
        ));
    }
    let reply = server
        .ask(
            Method::POST,
            MAPS,
            &[("content-type", "application/yaml")],
            bomb.into_bytes(),
        )
        .await;
    assert_eq!(reply.code, 400, "{:.200}", reply.text);
}

#[tokio::test]
async fn a_selector_has_a_bounded_number_of_terms() {
    let server = TestServer::new().await;
    let values = vec!["v"; 2000].join(",");
    let refused = server
        .get(&format!("{MAPS}?labelSelector=a%20in%20({values})"))
        .await;
    assert_eq!(refused.code, 400, "{}", refused.text);
    let few = server
        .get(&format!("{MAPS}?labelSelector=a%20in%20(v,w)"))
        .await;
    assert_eq!(few.code, 200);
}

#[tokio::test]
async fn times_at_the_edge_of_their_type_end_nothing() {
    let server = TestServer::new().await;
    for seconds in [
        "9223372036854775807",
        "18446744073709551615",
        "-9223372036854775808",
        "x",
    ] {
        let response = server
            .raw(
                &server.user,
                Method::GET,
                &format!("{MAPS}?watch=true&timeoutSeconds={seconds}"),
                &[],
                Vec::new(),
            )
            .await;
        assert!(matches!(response.status().as_u16(), 200 | 400), "{seconds}");
    }
    let reply = server
        .ask(
            Method::DELETE,
            &format!("{MAPS}/nothing?gracePeriodSeconds=9223372036854775807"),
            &[],
            Vec::new(),
        )
        .await;
    assert_eq!(reply.code, 404);
}

#[tokio::test]
async fn events_are_bounded_by_object_and_namespace() {
    let server = TestServer::new().await;
    let path = "/api/v1/namespaces/default/events";
    for n in 0..250 {
        let event = json!({"metadata": {"name": format!("noisy.{n:04}")}, "reason": "R", "type": "Normal",
            "lastTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", n / 60, n % 60),
            "involvedObject": {"kind": "Pod", "name": "noisy", "namespace": "default"}});
        assert_eq!(server.post(path, event).await.code, 201);
    }
    let listed = server.get(path).await;
    let names: Vec<&str> = listed.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(names.len() <= 100, "{}", names.len());
    assert!(names.contains(&"noisy.0249") && !names.contains(&"noisy.0000"));
}

/// The kind of a definition is served although the client that sent it went away between the commit and the answer.
#[tokio::test]
async fn what_follows_a_commit_does_not_need_its_client() {
    let folder =
        std::env::temp_dir().join(format!("kinglet-apiserver-cancel-{}", std::process::id()));
    let store = Store::open(&folder, ApiServer::store_options()).unwrap();
    let api = ApiServer::new(store, Options::default());
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let admin = Identity::remote("admin", vec!["system:masters".to_owned()]);
    let request = http::Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(
            definition.to_string(),
        )))
        .unwrap();
    let mut call = api.service(admin.clone()).call(request);
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(call);
    let served = async {
        loop {
            let request = http::Request::get("/apis/example.com/v1")
                .body(http_body_util::Full::new(bytes::Bytes::new()))
                .unwrap();
            let Ok(response) = api.service(admin.clone()).call(request).await;
            if response.status() == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), served)
        .await
        .expect("the kind is served");
    api.store().close();
    std::fs::remove_dir_all(&folder).unwrap();
}
