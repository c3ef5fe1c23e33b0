//! From nothing to ready, to zero, and back.

use serde_json::json;

use super::*;

#[test]
fn from_nothing_to_ready_and_to_zero() {
    let mut world = World::new();
    makes_what_it_needs(&mut world);
    waits_for_pods(&mut world);
    sees_a_container_run(&mut world);
    becomes_ready(&mut world);
    goes_to_zero(&mut world);
    wakes_up(&mut world);
}

fn makes_what_it_needs(world: &mut World) {
    let first = world.step();
    let kinds: Vec<_> = first
        .writes()
        .map(|write| (write.verb.clone(), write.kind.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            (Verb::Create, "Deployment"),
            (Verb::Create, "PodAutoscaler"),
            (Verb::Create, "Image"),
            (Verb::Status, "Revision")
        ]
    );
    assert_eq!(
        world.says(),
        [
            "Active=Unknown Deploying",
            "ContainerHealthy=Unknown Deploying",
            "ResourcesAvailable=Unknown Deploying"
        ]
    );
    assert_eq!(world.reachability(), "Reachable");
    let again = world.step();
    assert!(
        again
            .writes()
            .all(kinglet_reconcile::Write::changes_nothing),
        "{again:?}"
    );
}

fn waits_for_pods(world: &mut World) {
    world.deployment(1, 0, progressing());
    world.autoscaler(scaler(
        "Unknown",
        "Queued",
        "Requests are buffered.",
        "Unknown",
        "",
        0,
        -1,
    ));
    world.step();
    assert_eq!(
        world.says(),
        [
            "Active=Unknown Queued Requests are buffered.",
            "ContainerHealthy=Unknown Deploying",
            "ResourcesAvailable=Unknown Deploying"
        ]
    );
}

fn sees_a_container_run(world: &mut World) {
    world.deployment(1, 1, progressing());
    world.step();
    assert_eq!(
        world.says()[1..],
        [
            "ContainerHealthy=True",
            "ResourcesAvailable=Unknown Deploying"
        ]
    );
}

fn becomes_ready(world: &mut World) {
    world.autoscaler(scaler("Unknown", "NotReady", "", "True", "hello-1", 1, -1));
    let plan = world.step();
    assert_eq!(
        world.says(),
        [
            "Active=Unknown NotReady",
            "ContainerHealthy=True",
            "ResourcesAvailable=True"
        ]
    );
    assert_eq!(world.ready(), "True");
    assert_eq!(
        plan.events()
            .map(|event| event.reason.as_str())
            .collect::<Vec<_>>(),
        ["RevisionReady"]
    );
    assert_eq!(
        (
            world.0.revision.status.actual_replicas,
            world.0.revision.status.desired_replicas
        ),
        (Some(1), None)
    );
}

fn goes_to_zero(world: &mut World) {
    world.deployment(0, 0, progressing());
    world.autoscaler(scaler(
        "False",
        "NoTraffic",
        "The target is not receiving traffic.",
        "True",
        "hello-1",
        0,
        0,
    ));
    world.step();
    assert_eq!(
        world.says()[0],
        "Active=False NoTraffic The target is not receiving traffic."
    );
    assert_eq!(world.ready(), "True");
}

/// A pod that is slow to wake leaves the Revision ready.
fn wakes_up(world: &mut World) {
    world.deployment(1, 0, progressing());
    world.pods(&[container(
        json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}}),
        json!({}),
        true,
    )]);
    world.autoscaler(scaler(
        "Unknown",
        "Queued",
        "Requests are buffered.",
        "True",
        "hello-1",
        0,
        1,
    ));
    world.step();
    assert_eq!(world.ready(), "True");
}

#[test]
fn recovery() {
    let mut world = deploying();
    world.pods(&[container(
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "x"}}),
        json!({}),
        false,
    )]);
    world.step();
    assert!(world.ready().starts_with("False ImagePullBackOff"));
    world.deployment(1, 1, progressing());
    world.pods(&[]);
    world.autoscaler(scaler("True", "", "", "True", "hello-1", 1, 1));
    world.step();
    assert_eq!(world.ready(), "True");
    assert_eq!(world.reachability(), "Reachable");
}

#[test]
fn images_first() {
    let mut world = World::new();
    world.0.images = Known::Pending;
    let plan = world.step();
    assert_eq!(plan.writes().count(), 1, "only the status");
    assert_eq!(world.ready(), "Unknown ResolvingDigests");
    world.0.images = Known::Failed {
        message: "Unable to fetch image \"x\": no".to_owned(),
        news: true,
    };
    let plan = world.step();
    assert_eq!(
        world.ready(),
        "False ContainerMissing Unable to fetch image \"x\": no"
    );
    assert!(plan.error.is_some());
    world.0.images = Known::Pending;
    world.step();
    assert!(
        world.ready().starts_with("False ContainerMissing"),
        "until it is known better"
    );
    world.0.images = World::new().0.images;
    world.step();
    assert_eq!(world.ready(), "Unknown Deploying");
    assert_eq!(world.0.revision.status.container_statuses.len(), 1);
}

#[test]
fn foreign_objects_are_left_alone() {
    let mut world = World::new();
    let foreign = json!({"metadata": {"name": "hello-1-deployment", "namespace": "a"}, "spec": {"selector": {}, "template": {}}});
    world.0.deployment = Some(Arc::new(serde_json::from_value(foreign).unwrap()));
    let plan = world.step();
    assert_eq!(
        plan.writes()
            .filter(|write| write.kind != "Revision")
            .count(),
        0
    );
    assert_eq!(
        world.ready(),
        "False NotOwned There is an existing Deployment \"hello-1-deployment\" that we do not own."
    );
}

#[test]
fn the_autoscalers_bounds_follow_the_revision() {
    let mut world = deploying();
    let mut next = Revision::clone(&world.0.revision);
    next.metadata.annotations.get_or_insert_default().insert(
        "autoscaling.knative.dev/min-scale".to_owned(),
        "2".to_owned(),
    );
    world.0.revision = Arc::new(next.clone());
    world.step();
    let annotations = |world: &World| {
        world
            .0
            .autoscaler
            .as_ref()
            .unwrap()
            .metadata
            .annotations
            .clone()
            .unwrap()
    };
    assert_eq!(
        annotations(&world)["autoscaling.knative.dev/min-scale"],
        "2"
    );
    assert_eq!(
        annotations(&world)["autoscaling.knative.dev/class"],
        "kpa.autoscaling.knative.dev"
    );
    next.metadata.annotations = None;
    world.0.revision = Arc::new(next);
    world.step();
    assert!(!annotations(&world).contains_key("autoscaling.knative.dev/min-scale"));
    assert_eq!(
        annotations(&world)["autoscaling.knative.dev/metric"],
        "concurrency"
    );
}
