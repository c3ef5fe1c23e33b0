//! How often the API server is asked: once per kind for a watch, and no more than it takes for a cold start.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use kinglet_decide::feed::{Key, Report, Source};
use serde_json::{Value, json};

use crate::faults::Odds;
use crate::world::{SERVICES, World, condition, service};

const MAX: Duration = Duration::from_secs(300);
const PODS: &str = "/api/v1/namespaces/default/pods";
/// What a cold start takes, from the first request to the Pod's last word: Deployment, ReplicaSet, Pod, their statuses and
/// those of the PodAutoscaler, ServerlessService, Revision, and the addresses.
const WRITES_MAX: usize = 20;
/// Whether the ReplicaSet is still there before it gets a Pod.
const READS_MAX: usize = 1;

fn paths(calls: &[String], wanted: impl Fn(&str) -> bool) -> BTreeMap<&str, usize> {
    let mut out = BTreeMap::new();
    for call in calls.iter().filter(|call| wanted(call)) {
        let path = call.split('?').next().unwrap_or_default();
        *out.entry(path).or_default() += 1;
    }
    out
}

#[test]
fn each_kind_is_watched_once_whoever_reads_it() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut calls = world.first_table.lock().1.clone();
        calls.extend(world.faults.calls());
        let watches = paths(&calls, |call| call.contains("watch="));
        assert!(watches.len() > 20, "{watches:?}");
        for (path, count) in &watches {
            assert_eq!(*count, 1, "{path}");
        }
        // The garbage collector knows kinds that nobody else reads, by the same means.
        let memory = world.caches.as_ref().unwrap().memory();
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let of = |path: &str| memory.iter().find(|kind| kind.path == path).unwrap();
        assert!(of(roles).objects > 0 && of(roles).typed == 0);
    });
}

#[test]
fn bytes_are_those_of_the_store_and_typed_copies_go_when_nobody_reads_them() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        let body = service("hello", "registry.example/hello:1", "v1");
        world.call("POST", SERVICES, body).await.unwrap();
        ready(&world).await;
        let caches = world.caches.as_ref().unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let memory = caches.memory();
        let typed: usize = memory.iter().map(|kind| kind.typed).sum();
        let objects: usize = memory.iter().map(|kind| kind.objects).sum();
        assert!(typed * 4 < objects, "{typed} of {objects}: {memory:#?}");
        let kinds = kinglet_reconcile::kinds::discover(&kinglet_reconcile::Context::new(caches));
        let mut known = kinds.subscribe();
        known.wait_for(|all| !all.is_empty()).await.unwrap();
        let stored = world.api.store().list("", None, 0, None).unwrap();
        let stored: HashSet<*const u8> = stored
            .entries
            .iter()
            .map(|(_, entry)| entry.value.as_ptr())
            .collect();
        let mut shared = 0;
        for kind in kinds.all().iter() {
            if matches!(kind.plural.as_str(), "events" | "leases") {
                continue;
            }
            for object in caches.dynamic(kind).all() {
                let is_stored = stored.contains(&object.raw().as_ptr());
                assert!(is_stored, "{} {object:?}", kind.path(None));
                shared += 1;
            }
        }
        assert!(shared > 30, "{shared}");
    });
}

async fn ready(world: &World) {
    let path = format!("{SERVICES}/hello");
    world
        .until("the Service is Ready", MAX, async || {
            let found = world.get(&path).await.unwrap();
            condition(&found, "Ready")["status"] == "True"
        })
        .await;
}

#[test]
fn a_cold_start_takes_no_more_calls_than_it_must() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        let body = service("hello", "registry.example/hello:1", "v1");
        world.call("POST", SERVICES, body).await.unwrap();
        ready(&world).await;
        world
            .until("the Service is at zero", MAX, async || {
                world.list(PODS).await.is_empty()
            })
            .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.faults.calls();
        let poke = Report::Poke {
            revision: Key::new("default", "hello-00001"),
            source: Source::itself("gateway"),
        };
        world.reports.as_ref().unwrap().send(poke).await.unwrap();
        world
            .until("a Pod is ready", MAX, async || {
                let pods = world.list(PODS).await;
                pods.iter()
                    .any(|pod| condition(pod, "Ready")["status"] == "True")
            })
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let calls = world.faults.calls();
        let events = |call: &str| call.contains("/events");
        let writes = paths(&calls, |call| !call.starts_with("GET") && !events(call));
        let reads = paths(&calls, |call| {
            call.starts_with("GET") && !call.contains("watch=")
        });
        let sum = |of: &BTreeMap<&str, usize>| of.values().sum::<usize>();
        assert!(sum(&writes) <= WRITES_MAX, "{writes:#?}");
        assert!(sum(&reads) <= READS_MAX, "{reads:#?}");
    });
}

/// Whoever asks right after a restart is not told that the host is unknown, however much there is to look at.
#[test]
fn after_a_restart_all_routes_are_known_before_any_controller_works() {
    crate::run(async {
        let mut world = World::start(1, Odds::CALM).await;
        for number in 0..5 {
            let body = service(&format!("s{number}"), "registry.example/hello:1", "v1");
            world.call("POST", SERVICES, body).await.unwrap();
        }
        let ready = async || {
            let all = world.list(SERVICES).await;
            let is_ready = |found: &Value| condition(found, "Ready")["status"] == "True";
            all.len() == 5 && all.iter().all(is_ready)
        };
        world.until("all are Ready", MAX, ready).await;
        // Something to write for every controller that begins.
        world.stop_controllers().await;
        for number in 0..5 {
            let patch = json!({"spec": service("", "registry.example/hello:1", "v2")["spec"]});
            let path = format!("{SERVICES}/s{number}");
            world.call("PATCH", &path, patch).await.unwrap();
        }
        *world.first_table.lock() = (0, Vec::new());
        world.faults.calls();
        world.restart_controllers().await;
        let begun = async || world.first_table.lock().0 > 0;
        world.until("a table is published", MAX, begun).await;
        let (hosts, calls) = world.first_table.lock().clone();
        // Each Service has its host outside and three names inside.
        assert_eq!(hosts, 5 * 4, "{calls:#?}");
        let writes = paths(&calls, |call| !call.starts_with("GET"));
        assert!(writes.is_empty(), "{writes:#?}");
    });
}
