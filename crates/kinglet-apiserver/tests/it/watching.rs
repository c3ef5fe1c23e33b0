//! Watching: order, bookmarks, selectors, too old.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use kinglet_apiserver::Body;
use serde_json::{Value, json};

use crate::test_server::{MAPS, TestServer, config_map};

struct Lines {
    body: Body,
    rest: String,
}

impl Lines {
    async fn open(server: &TestServer, path: &str, accept: &str) -> Self {
        let response = server
            .raw(
                &server.user,
                Method::GET,
                path,
                &[("accept", accept)],
                Vec::new(),
            )
            .await;
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            rest: String::new(),
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let value = serde_json::from_str(line).unwrap();
                self.rest = rest.to_owned();
                return Some(value);
            }
            let frame = tokio::time::timeout(Duration::from_secs(100), self.body.frame())
                .await
                .expect("an event in time")?;
            self.rest
                .push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(
            (
                event["type"].as_str(),
                event["object"]["metadata"]["name"].as_str().unwrap_or("")
            ),
            (Some(kind), name),
            "{event}"
        );
        event
    }
}

const PLAIN: &str = "application/json";

#[tokio::test]
async fn an_informer_sees_everything_in_order() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let mut lines = Lines::open(
        &server,
        &format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"),
        PLAIN,
    )
    .await;
    lines.expect("ADDED", "a").await;
    let end = lines.expect("BOOKMARK", "").await;
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(
        (&end["object"]["kind"], &end["object"]["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
    server.post(MAPS, config_map("b")).await;
    server
        .patch(
            &format!("{MAPS}/a"),
            "merge-patch+json",
            json!({"data": {"k": "w"}}),
        )
        .await;
    server.delete(&format!("{MAPS}/b")).await;
    let added = lines.expect("ADDED", "b").await;
    let modified = lines.expect("MODIFIED", "a").await;
    let deleted = lines.expect("DELETED", "b").await;
    let revision = |event: &Value| {
        event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(revision(&added) < revision(&modified) && revision(&modified) < revision(&deleted));
}

#[tokio::test]
async fn a_selector_turns_changes_into_coming_and_going() {
    let server = TestServer::new().await;
    let start = server.get(MAPS).await.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut lines = Lines::open(
        &server,
        &format!("{MAPS}?watch=1&resourceVersion={start}&labelSelector=on%3Dyes"),
        PLAIN,
    )
    .await;
    server.post(MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    server
        .patch(
            &path,
            "merge-patch+json",
            json!({"metadata": {"labels": {"on": "yes"}}}),
        )
        .await;
    server
        .patch(&path, "merge-patch+json", json!({"data": {"k": "w"}}))
        .await;
    server
        .patch(
            &path,
            "merge-patch+json",
            json!({"metadata": {"labels": {"on": "no"}}}),
        )
        .await;
    lines.expect("ADDED", "a").await;
    lines.expect("MODIFIED", "a").await;
    lines.expect("DELETED", "a").await;
}

#[tokio::test]
async fn tables_are_watched_too() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let mut lines = Lines::open(
        &server,
        &format!("{MAPS}?watch=1"),
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    .await;
    let first = lines.next().await.unwrap();
    assert_eq!(
        (
            &first["object"]["kind"],
            &first["object"]["rows"][0]["cells"][0]
        ),
        (&json!("Table"), &json!("a"))
    );
    assert!(
        !first["object"]["columnDefinitions"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_lost_version_is_said_to_be_gone() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    let old = server.api.store().revision();
    server.post(MAPS, config_map("b")).await;
    server.api.store().compact(server.api.store().revision());
    let mut lines = Lines::open(
        &server,
        &format!("{MAPS}?watch=1&resourceVersion={old}"),
        PLAIN,
    )
    .await;
    let event = lines.next().await.unwrap();
    assert_eq!(
        (
            &event["type"],
            &event["object"]["code"],
            &event["object"]["reason"]
        ),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(lines.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks_and_end_in_time() {
    let server = TestServer::new().await;
    let path = format!(
        "{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion={}",
        server.api.store().revision()
    );
    let mut lines = Lines::open(&server, &path, PLAIN).await;
    lines.expect("BOOKMARK", "").await;
    lines.expect("BOOKMARK", "").await;
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn one_object_can_be_watched_by_name() {
    let server = TestServer::new().await;
    server.post(MAPS, config_map("a")).await;
    server.post(MAPS, config_map("b")).await;
    let mut lines = Lines::open(
        &server,
        &format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db&timeoutSeconds=5"),
        PLAIN,
    )
    .await;
    lines.expect("ADDED", "b").await;
    let refused = server
        .get(&format!(
            "{MAPS}?watch=1&resourceVersionMatch=Exact&resourceVersion=1"
        ))
        .await;
    assert_eq!(refused.code, 422);
}
