//! Which notes a Route leaves and takes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route};
use serde_json::json;

use super::decide::{LabelerObserved, decide};

fn route(ready: &str, latest: &str, deleting: bool) -> Arc<Route> {
    let mut value = json!({
        "metadata": {"name": "hello", "namespace": "a", "finalizers": [keys::ROUTE_FINALIZER]},
        "spec": {"traffic": [{"configurationName": "hello", "latestRevision": true, "percent": 100}]},
        "status": {
            "traffic": [{"revisionName": latest, "latestRevision": true, "percent": 100}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    });
    if deleting {
        value["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn revision(name: &str, routes: &str, state: &str) -> Arc<Revision> {
    let value = json!({
        "metadata": {
            "name": name, "namespace": "a", "labels": {keys::ROUTING_STATE: state}, "annotations": {keys::ROUTES: routes},
            "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c", "controller": true}],
        },
        "spec": {"containers": []},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn look(
    route: Arc<Route>,
    latest_created: &str,
    routes: &str,
    revisions: Vec<Arc<Revision>>,
) -> Vec<String> {
    let configuration: Configuration = serde_json::from_value(json!({
        "metadata": {"name": "hello", "namespace": "a", "annotations": {keys::ROUTES: routes}},
        "status": {"latestCreatedRevisionName": latest_created},
    }))
    .unwrap();
    let observed = LabelerObserved {
        route,
        revisions: revisions
            .into_iter()
            .map(|revision| (revision.name().to_owned(), revision))
            .collect(),
        configurations: BTreeMap::from([("hello".to_owned(), Arc::new(configuration))]),
        now: Timestamp::from_second(0).unwrap(),
    };
    let plan = decide(&observed);
    plan.writes()
        .map(|write| {
            let meta = &write.body["metadata"];
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            let (state, routes) = (
                text(&meta["labels"][keys::ROUTING_STATE]),
                text(&meta["annotations"][keys::ROUTES]),
            );
            let stamped = meta["annotations"]
                .get(keys::ROUTING_STATE_MODIFIED)
                .is_some();
            format!(
                "{} {} {state} {routes}{}",
                write.kind,
                write.key.name,
                if stamped { " stamped" } else { "" }
            )
        })
        .collect()
}

#[test]
fn notes_follow_the_traffic() {
    let active = |name: &str| revision(name, "hello", "active");
    // As made by a Configuration that the Route leads to: nothing to do.
    assert_eq!(
        look(
            route("Unknown", "", false),
            "v1",
            "hello",
            vec![active("v1")]
        ),
        [""; 0]
    );
    // A Configuration of its own, without notes.
    assert_eq!(
        look(
            route("Unknown", "", false),
            "v1",
            "",
            vec![revision("v1", "", "pending")]
        ),
        [
            "Configuration hello - hello",
            "Revision v1 active hello stamped"
        ]
    );
    // The new one takes over: the old one goes only once the Route is settled.
    let both = || vec![active("v1"), active("v2")];
    assert_eq!(
        look(route("Unknown", "v2", false), "v2", "hello", both()),
        [""; 0]
    );
    assert_eq!(
        look(route("True", "v2", false), "v2", "hello", both()),
        ["Revision v1 reserve - stamped"]
    );
    // Another route still leads to it.
    let shared = vec![revision("v1", "hello,other", "active"), active("v2")];
    assert_eq!(
        look(route("False", "v2", false), "v2", "hello", shared),
        ["Revision v1 active other"]
    );
}

#[test]
fn a_deleted_route_leaves_nothing_behind() {
    assert_eq!(
        look(
            route("Unknown", "v1", true),
            "v1",
            "hello",
            vec![revision("v1", "hello", "active")]
        ),
        ["Configuration hello - -", "Revision v1 reserve - stamped"]
    );
}
