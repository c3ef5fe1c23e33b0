//! A client that writes, reads, and then counts only the changes that follow (as kn does) hears every verdict.

use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Odds;
use crate::world::{MISSING_IMAGE, SERVICES, World, condition, service};

/// kn's patience would be ten minutes.
const MAX: Duration = Duration::from_secs(30);
/// How long after its write a client may take to read and watch.
const LATE_MS: [u64; 6] = [0, 5, 50, 200, 500, 800];

/// Reads `path` after `late`, then watches from there; answers the first change with a verdict about the generation.
async fn verdict(world: &World, name: &str, late: Duration) -> Value {
    tokio::time::sleep(late).await;
    let read = world.get(&format!("{SERVICES}/{name}")).await.unwrap();
    let version = read["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!(
        "{SERVICES}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}"
    );
    let event = world
        .watch_until(&watch, MAX, |event| {
            let object = &event["object"];
            let told = condition(object, "Ready")["status"].as_str();
            event["type"] == "MODIFIED"
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && matches!(told, Some("True" | "False"))
        })
        .await;
    let event =
        event.unwrap_or_else(|| panic!("{late:?} late, nothing is heard of {name}: {read}"));
    condition(&event["object"], "Ready").clone()
}

async fn ready(world: &World, name: &str) {
    let path = format!("{SERVICES}/{name}");
    world
        .until("the Service is Ready", MAX, async || {
            let found = world.get(&path).await.unwrap();
            condition(&found, "Ready")["status"] == "True"
        })
        .await;
}

#[test]
fn a_write_that_fails_at_once_is_heard_by_who_watches_late() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        for (number, late) in LATE_MS.into_iter().enumerate() {
            let (name, late) = (format!("s{number}"), Duration::from_millis(late));
            let path = format!("{SERVICES}/{name}");
            let body = service(&name, "registry.example/hello:1", "v1");
            world.call("POST", SERVICES, body).await.unwrap();
            ready(&world, &name).await;
            // Traffic to a Revision that is not there.
            let traffic = json!({"spec": {"traffic": [{"revisionName": "nope", "percent": 100}]}});
            world.call("PATCH", &path, traffic).await.unwrap();
            let told = verdict(&world, &name, late).await;
            assert_eq!(told["status"], "False");
            assert_eq!(told["reason"], "RevisionMissing");
            assert_eq!(
                told["message"],
                "Revision \"nope\" referenced in traffic not found."
            );
            // The same failure again, after another change.
            let traffic = json!({"spec": {"traffic": [{"revisionName": "nada", "percent": 100}]}});
            world.call("PATCH", &path, traffic).await.unwrap();
            assert_eq!(verdict(&world, &name, late).await["status"], "False");
            // An image that is not there.
            let spec = json!({
                "traffic": [{"latestRevision": true, "percent": 100}],
                "template": {"spec": {"containers": [{"image": MISSING_IMAGE}]}},
            });
            world
                .call("PATCH", &path, json!({"spec": spec}))
                .await
                .unwrap();
            let told = verdict(&world, &name, late).await;
            assert_eq!(told["status"], "False", "{told}");
            assert_eq!(told["reason"], "RevisionFailed", "{told}");
        }
    });
}

#[test]
fn before_its_verdict_a_failing_generation_reads_as_knative_has_it() {
    crate::run(async {
        let world = World::start(2, Odds::CALM).await;
        let path = format!("{SERVICES}/hello");
        let body = service("hello", "registry.example/hello:1", "v1");
        world.call("POST", SERVICES, body).await.unwrap();
        ready(&world, "hello").await;
        let traffic = json!({"spec": {"traffic": [{"revisionName": "nope", "percent": 100}]}});
        let written = world.call("PATCH", &path, traffic).await.unwrap();
        let version = written["metadata"]["resourceVersion"].as_str().unwrap();
        let watch = format!("{SERVICES}?watch=true&resourceVersion={version}");
        let first = world
            .watch_until(&watch, MAX, |event| event["type"] == "MODIFIED")
            .await
            .unwrap();
        let found = &first["object"];
        let routes = condition(found, "RoutesReady");
        assert_eq!(
            (&routes["status"], &routes["reason"], &routes["message"]),
            (
                &json!("Unknown"),
                &json!("OutOfDate"),
                &json!("The Route is still working to reflect the latest desired specification.")
            )
        );
        assert_eq!(found["status"]["observedGeneration"], 2);
    });
}

#[test]
fn success_does_not_wait() {
    crate::run(async {
        let world = World::start(3, Odds::CALM).await;
        let path = format!("{SERVICES}/hello");
        let body = service("hello", "registry.example/hello:1", "v1");
        world.call("POST", SERVICES, body).await.unwrap();
        ready(&world, "hello").await;
        let first = world.get(&path).await.unwrap()["status"]["latestReadyRevisionName"].clone();
        let began = tokio::time::Instant::now();
        let traffic = json!({"spec": {"traffic": [{"revisionName": first, "percent": 100}]}});
        world.call("PATCH", &path, traffic).await.unwrap();
        world
            .until("the traffic is led", MAX, async || {
                let found = world.get(&path).await.unwrap();
                found["status"]["observedGeneration"] == 2
                    && condition(&found, "Ready")["status"] == "True"
            })
            .await;
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_host_label_that_is_too_long_is_told_by_route_and_service() {
    crate::run(async {
        let world = World::start(4, Odds::CALM).await;
        let name = "a23456789-b23456789-c23456789-d23456789-e23456789-f2345678";
        let mut body = service(name, "registry.example/hello:1", "v1");
        body["spec"]["traffic"] =
            json!([{"latestRevision": true, "percent": 100, "tag": "candidate"}]);
        world.call("POST", SERVICES, body).await.unwrap();
        let told = verdict(&world, name, Duration::ZERO).await;
        assert_eq!(told["status"], "False");
        assert_eq!(told["reason"], "ErrorConfig", "{told}");
        let message = told["message"].as_str().unwrap();
        assert!(
            message.starts_with("invalid domain name \"candidate-a23456789"),
            "{message}"
        );
        assert!(
            message.ends_with(": must be no more than 63 characters"),
            "{message}"
        );
        let route = world
            .get(&format!(
                "/apis/serving.knative.dev/v1/namespaces/default/routes/{name}"
            ))
            .await
            .unwrap();
        assert_eq!(
            condition(&route, "AllTrafficAssigned")["reason"],
            "ErrorConfig"
        );
    });
}
