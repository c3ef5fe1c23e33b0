//! Deleting a Service while its controllers hear of it late and in any order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::Odds;
use crate::invariants::Observer;
use crate::world::{SERVICES, World, service};

/// Times a Service is made and deleted.
const ROUNDS: u64 = 20;
const MAX: Duration = Duration::from_secs(600);

#[test]
fn nothing_is_made_again_for_an_owner_that_is_gone() {
    crate::run(async {
        let world = World::start(7, Odds::LATE).await;
        let mut observer = Observer::new(&world);
        world.faults.set(true);
        let path = format!("{SERVICES}/hello");
        for round in 0..ROUNDS {
            world
                .call(
                    "POST",
                    SERVICES,
                    service("hello", "registry.example/hello:1", "v1"),
                )
                .await
                .unwrap();
            // Deleted at another moment of its life each time.
            tokio::time::sleep(Duration::from_millis(round * 90)).await;
            let policy = ["Background", "Foreground"][usize::from(round % 2 == 1)];
            world
                .call("DELETE", &path, json!({"propagationPolicy": policy}))
                .await
                .unwrap();
            let began = tokio::time::Instant::now();
            loop {
                observer.look();
                let left = left(&world).await;
                if left.is_empty() {
                    break;
                }
                assert!(
                    began.elapsed() < MAX,
                    "round {round}: still there: {left:?}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        observer.look();
    });
}

/// Everything of Services that is there.
async fn left(world: &World) -> Vec<String> {
    let knative = "/apis/serving.knative.dev/v1/namespaces/default";
    let internal = "internal.knative.dev/v1alpha1/namespaces/default";
    let paths = [
        format!("{knative}/services"),
        format!("{knative}/configurations"),
        format!("{knative}/routes"),
        format!("{knative}/revisions"),
        format!("/apis/autoscaling.{internal}/podautoscalers"),
        format!("/apis/networking.{internal}/serverlessservices"),
        format!("/apis/networking.{internal}/ingresses"),
        "/apis/apps/v1/namespaces/default/deployments".to_owned(),
        "/apis/apps/v1/namespaces/default/replicasets".to_owned(),
        "/api/v1/namespaces/default/pods".to_owned(),
    ];
    let mut left = Vec::new();
    for path in paths {
        let names = world.list(&path).await;
        left.extend(
            names
                .iter()
                .filter_map(|object: &Value| object["metadata"]["name"].as_str())
                .map(|name| format!("{path}/{name}")),
        );
    }
    left
}
