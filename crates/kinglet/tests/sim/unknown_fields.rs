//! Objects with fields of a newer Kubernetes go through every controller and come out with them.

use std::collections::BTreeMap;
use std::time::Duration;

use kinglet_decide::feed::{Key, Report, Source};
use serde_json::{Value, json};

use crate::faults::Odds;
use crate::world::{SERVICES, World, condition, service};

const MAX: Duration = Duration::from_secs(300);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Collections whose objects controllers write.
const BUILT_IN: [&str; 7] = [
    "/api/v1/namespaces",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/endpoints",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    DEPLOYMENTS,
    REPLICA_SETS,
    PODS,
];
const CUSTOM: [&str; 8] = [
    SERVICES,
    "/apis/serving.knative.dev/v1/namespaces/default/configurations",
    "/apis/serving.knative.dev/v1/namespaces/default/revisions",
    "/apis/serving.knative.dev/v1/namespaces/default/routes",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/metrics",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/ingresses",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/serverlessservices",
];
const FIELD: &str = "newField";

/// Definitions of a newer Knative: each kind has one more field in spec and status.
async fn renew_definitions(world: &World) {
    for definition in world.list(DEFINITIONS).await {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let add = |definition: &mut Value| {
            for version in definition["spec"]["versions"].as_array_mut().unwrap() {
                for part in ["spec", "status"] {
                    let fields = format!("/schema/openAPIV3Schema/properties/{part}/properties");
                    if let Some(fields) = version.pointer_mut(&fields) {
                        fields[FIELD] = json!({"type": "string"});
                    }
                }
            }
        };
        let path = format!("{DEFINITIONS}/{name}");
        world.change_inside(&path, "", add).await.unwrap();
    }
}

/// Where the field was put: path of the object and uid, JSON pointers.
type Sprinkled = BTreeMap<(String, String), Vec<&'static str>>;

/// Puts the field into everything there is.
async fn sprinkle(world: &World, custom: bool, collection: &str, out: &mut Sprinkled) {
    for found in world.list(collection).await {
        let name = found["metadata"]["name"].as_str().unwrap();
        let path = format!("{collection}/{name}");
        let uid = found["metadata"]["uid"].as_str().unwrap().to_owned();
        let mut places = Vec::new();
        if !custom {
            places.push("/metadata");
        }
        // A Revision's spec may not change, and of a Pod's and a slice's only a few fields.
        let fixed = ["/revisions", "/pods", "/endpoints", "/endpointslices"];
        if found["spec"].is_object() && !fixed.iter().any(|fixed| collection.ends_with(fixed)) {
            places.push("/spec");
        }
        if [DEPLOYMENTS, REPLICA_SETS].contains(&collection) {
            places.push("/spec/template/spec/containers/0");
        }
        let add = |places: &[&str], object: &mut Value| {
            for place in places {
                object.pointer_mut(place).unwrap()[FIELD] = json!("kept");
            }
        };
        let spec = world.change_inside(&path, "", |object| add(&places, object));
        let taken = spec.await.unwrap_or_else(|error| panic!("{path}: {error}"));
        // What the API server itself does not take is none of the controllers' business.
        places.retain(|place| taken.pointer(&format!("{place}/{FIELD}")).is_some());
        assert!(custom || !places.is_empty(), "{path}");
        if found["status"].is_object() && !path.contains("/endpoints") {
            let status = world.change_inside(&path, "/status", |object| add(&["/status"], object));
            status
                .await
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            places.push("/status");
        }
        out.insert((path, uid), places);
    }
}

/// The objects that are still there, each checked. Answers how many.
async fn check(world: &World, sprinkled: &Sprinkled, when: &str) -> usize {
    let mut there = 0;
    for ((path, uid), places) in sprinkled {
        let Some(object) = world.get(path).await else {
            continue;
        };
        if object["metadata"]["uid"] != **uid {
            continue;
        }
        there += 1;
        for place in places {
            let kept = object.pointer(&format!("{place}/{FIELD}"));
            assert_eq!(
                kept,
                Some(&json!("kept")),
                "{when}: {path} at {place}: {object:#}"
            );
        }
    }
    there
}

async fn ready(world: &World, generation: u64) {
    let path = format!("{SERVICES}/hello");
    world
        .until("the Service is Ready", MAX, async || {
            let found = world.get(&path).await.unwrap();
            condition(&found, "Ready")["status"] == "True"
                && found["status"]["observedGeneration"] == generation
        })
        .await;
}

#[test]
fn no_controller_drops_a_field_that_it_does_not_know() {
    crate::run(async {
        let mut world = World::start(1, Odds::CALM).await;
        renew_definitions(&world).await;
        let body = service("hello", "registry.example/hello:1", "v1");
        world.call("POST", SERVICES, body).await.unwrap();
        ready(&world, 1).await;
        let mut sprinkled = Sprinkled::new();
        for collection in BUILT_IN {
            sprinkle(&world, false, collection, &mut sprinkled).await;
        }
        for collection in CUSTOM {
            sprinkle(&world, true, collection, &mut sprinkled).await;
        }
        let all = sprinkled.len();
        let places: usize = sprinkled.values().map(Vec::len).sum();
        assert!(all > 20 && places > 2 * all, "{sprinkled:#?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(check(&world, &sprinkled, "at once").await, all);

        // To zero and back: the Deployment is scaled, and the new Pod is made of the whole template.
        world
            .until("the Service is at zero", MAX, async || {
                world.list(PODS).await.is_empty()
            })
            .await;
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
        let pod = &world.list(PODS).await[0];
        assert_eq!(pod["spec"]["containers"][0][FIELD], "kept", "{pod:#}");
        assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 2);
        check(&world, &sprinkled, "after a cold start").await;

        // Another Revision, and controllers with empty caches.
        let generation = world.get(&format!("{SERVICES}/hello")).await.unwrap();
        let generation = generation["metadata"]["generation"].as_u64().unwrap();
        let next = service("hello", "registry.example/hello:1", "v2");
        let patch = json!({"spec": next["spec"]});
        let path = format!("{SERVICES}/hello");
        world.call("PATCH", &path, patch).await.unwrap();
        ready(&world, generation + 1).await;
        world.restart_controllers().await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        let there = check(&world, &sprinkled, "after a rollout").await;
        assert!(there + 3 >= all, "{there} of {all}");
    });
}

#[test]
fn a_deployment_hands_the_whole_template_down() {
    crate::run(async {
        let world = World::start(1, Odds::CALM).await;
        let name = json!({"app": "plain"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "plain", "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": name}, "template": {
                "metadata": {"labels": name},
                "spec": {"newField": "kept", "containers": [{"name": "c", "image": "i", "newField": {"a": ["kept"]}}]},
            }},
        });
        world.create_inside(DEPLOYMENTS, deployment).await.unwrap();
        world
            .until("its Pod is there", MAX, async || {
                world.list(PODS).await.len() == 1
            })
            .await;
        let set = &world.list(REPLICA_SETS).await[0];
        let pod = &world.list(PODS).await[0];
        for (kind, spec) in [
            ("ReplicaSet", &set["spec"]["template"]["spec"]),
            ("Pod", &pod["spec"]),
        ] {
            assert_eq!(spec["newField"], "kept", "{kind}");
            assert_eq!(spec["containers"][0]["newField"]["a"][0], "kept", "{kind}");
        }
        // What was handed down is no reason to roll out anew.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.list(REPLICA_SETS).await.len(), 1);
        assert_eq!(world.list(PODS).await.len(), 1);
    });
}
