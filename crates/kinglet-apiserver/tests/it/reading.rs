//! Lists, pages, selectors, discovery.

use http::Method;
use serde_json::json;

use crate::test_server::{MAPS, TestServer, config_map};

#[tokio::test]
async fn lists_come_in_pages_of_one_moment() {
    let server = TestServer::new().await;
    for n in 0..7 {
        server.post(MAPS, config_map(&format!("m{n}"))).await;
    }
    let first = server.get(&format!("{MAPS}?limit=3")).await.body;
    assert_eq!(
        (
            first["kind"].as_str(),
            first["metadata"]["remainingItemCount"].as_i64()
        ),
        (Some("ConfigMapList"), Some(4))
    );
    server.delete(&format!("{MAPS}/m5")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{MAPS}?limit=10&continue={token}"))
        .await
        .body;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    server.api.store().compact(server.api.store().revision());
    server.post(MAPS, config_map("m9")).await;
    let late = server
        .get(&format!("{MAPS}?limit=10&continue={token}"))
        .await;
    assert_eq!((late.code, &late.body["reason"]), (410, &json!("Expired")));
    let fresh = late.body["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{MAPS}?limit=10&continue={fresh}"))
        .await
        .body;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(4), "{rest}");
    assert_eq!(
        server.get(&format!("{MAPS}?continue=nonsense")).await.code,
        400
    );
    let future = server.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(
        (future.code, &future.body["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge"))
    );
}

#[tokio::test]
async fn selectors_select_over_pages() {
    let server = TestServer::new().await;
    for n in 0..6 {
        let mut map = config_map(&format!("m{n}"));
        map["metadata"]["labels"] = json!({"even": (n % 2 == 0).to_string()});
        server.post(MAPS, map).await;
    }
    let first = server
        .get(&format!("{MAPS}?labelSelector=even%3Dtrue&limit=2"))
        .await
        .body;
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    assert!(first["metadata"].get("remainingItemCount").is_none());
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!(
            "{MAPS}?labelSelector=even%3Dtrue&limit=2&continue={token}"
        ))
        .await
        .body;
    assert_eq!(rest["items"][0]["metadata"]["name"], "m4");
    let one = server
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm3"))
        .await
        .body;
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        server
            .get(&format!("{MAPS}?labelSelector=a%20b"))
            .await
            .code,
        400
    );
    assert_eq!(
        server.get("/api/v1/configmaps").await.body["items"]
            .as_array()
            .map(Vec::len),
        Some(6)
    );
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let server = TestServer::new().await;
    let version = server.get("/version").await.body;
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.34.4+kinglet-")
    );
    assert_eq!(server.get("/api").await.body["versions"], json!(["v1"]));
    let core = server.get("/api/v1").await.body;
    let pods = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods")
        .unwrap()
        .clone();
    assert_eq!(
        (
            &pods["shortNames"],
            &pods["categories"],
            &pods["namespaced"]
        ),
        (&json!(["po"]), &json!(["all"]), &json!(true))
    );
    let groups = server.get("/apis").await.body;
    assert_eq!(groups["groups"][0]["name"], "apps");
    assert_eq!(
        server.get("/apis/apps").await.body["preferredVersion"]["groupVersion"],
        "apps/v1"
    );
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let all = server
        .ask(Method::GET, "/apis", &[("accept", accept)], Vec::new())
        .await;
    assert_eq!(
        all.media,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let resources: Vec<&str> = all.body["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["resource"].as_str().unwrap())
        .collect();
    assert_eq!(
        resources,
        ["daemonsets", "deployments", "replicasets", "statefulsets"]
    );
    // What nobody serves is listed, always empty, and refused in words.
    let none = server.get("/apis/apps/v1/statefulsets").await;
    assert_eq!(
        (none.code, &none.body["items"], &none.body["kind"]),
        (
            200,
            &serde_json::json!([]),
            &serde_json::json!("StatefulSetList")
        )
    );
    let refused = server
        .post(
            "/apis/apps/v1/namespaces/default/statefulsets",
            serde_json::json!({"metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(refused.code, 501);
    assert_eq!(
        refused.body["message"],
        "StatefulSet in version \"apps/v1\" is not supported: Kinglet runs Deployments and Knative Services"
    );
    let unknown = server
        .get("/apis/nosuch.example.com/v1/namespaces/default/things")
        .await;
    assert_eq!(
        (unknown.code, unknown.text.as_str()),
        (404, "404 page not found\n")
    );
    let v2 = server.get("/openapi/v2").await;
    assert_eq!(
        (v2.code, &v2.body["swagger"]),
        (200, &serde_json::json!("2.0"))
    );
    let protobuf = server
        .ask(
            Method::GET,
            "/openapi/v2",
            &[(
                "accept",
                "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            )],
            Vec::new(),
        )
        .await;
    assert_eq!(
        (protobuf.code, protobuf.media.as_str()),
        (
            200,
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        )
    );
    assert_eq!(server.get("/readyz").await.text, "ok");
    assert!(
        server
            .get("/livez?verbose")
            .await
            .text
            .contains("[+]store ok")
    );
    for path in [
        "/apis/none",
        "/apis/apps/v7",
        "/api/v1/namespaces/default/nones",
        "/nonsense",
    ] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    let head = server.ask(Method::HEAD, "/api/v1", &[], Vec::new()).await;
    assert_eq!((head.code, head.text.as_str()), (200, ""));
    assert_eq!(
        server
            .ask(Method::POST, "/version", &[], Vec::new())
            .await
            .code,
        405
    );
    assert_eq!(server.put(MAPS, json!({})).await.code, 405);
}

#[tokio::test]
async fn only_metadata_when_only_metadata_is_asked() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = server
        .ask(Method::GET, MAPS, &[("accept", accept)], Vec::new())
        .await
        .body;
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"]),
        (
            &json!("PartialObjectMetadataList"),
            &json!("PartialObjectMetadata")
        )
    );
    assert!(list["items"][0].get("data").is_none());
    assert_eq!(
        server
            .ask(
                Method::GET,
                MAPS,
                &[("accept", "application/vnd.kubernetes.protobuf")],
                Vec::new()
            )
            .await
            .code,
        406
    );
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let server = TestServer::new().await;
    let big = server
        .ask(
            Method::POST,
            MAPS,
            &[("content-type", "application/json")],
            vec![b' '; (3 << 20) + 1],
        )
        .await;
    assert_eq!(
        (big.code, &big.body["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    let empty = server
        .ask(
            Method::POST,
            MAPS,
            &[("content-type", "application/json")],
            Vec::new(),
        )
        .await;
    assert_eq!(empty.code, 400);
    let odd = server
        .ask(
            Method::POST,
            MAPS,
            &[("content-type", "text/plain")],
            b"x".to_vec(),
        )
        .await;
    assert_eq!(odd.code, 415);
}
