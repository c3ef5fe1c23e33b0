//! Trouble: of containers, Deployments, images and the autoscaler.

use serde_json::json;

use super::*;

#[test]
fn trouble_is_told_at_once() {
    let waiting = |reason: &str, message: &str| {
        container(
            json!({"waiting": {"reason": reason, "message": message}}),
            json!({}),
            false,
        )
    };
    let ended = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "message": message, "reason": "Error"}});
    let unscheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
    let slow = |since: &str| container(json!({"running": {"startedAt": since}}), json!({}), true);
    let rows: [(&str, Value, &str, &str); 10] = [
        (
            "a Secret is missing",
            waiting(
                "ContainerCreating",
                "MountVolume.SetUp failed for volume \"s\" : secret \"absent\" not found",
            ),
            "Unknown ContainerCreating MountVolume.SetUp failed for volume \"s\" : secret \"absent\" not found",
            "Reachable",
        ),
        (
            "image",
            waiting("ErrImagePull", "no such host"),
            "False ErrImagePull no such host",
            "Unreachable",
        ),
        (
            "back-off",
            waiting("ImagePullBackOff", "Back-off pulling image"),
            "False ImagePullBackOff Back-off pulling image",
            "Unreachable",
        ),
        (
            "on its way",
            waiting("ContainerCreating", ""),
            "Unknown Deploying",
            "Reachable",
        ),
        (
            "unschedulable",
            unscheduled,
            "False Unschedulable 0/1 nodes are available",
            "Unreachable",
        ),
        (
            "crash",
            container(ended(5, "Crashed...\n"), json!({}), false),
            "False ExitCode5 Container failed with: Crashed...",
            "Unreachable",
        ),
        (
            "crash loop",
            container(
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                ended(128, "no such file"),
                false,
            ),
            "False ExitCode128 Container failed with: no such file",
            "Unreachable",
        ),
        (
            "silent exit",
            container(ended(0, ""), json!({}), false),
            "False ExitCode0 Container failed with: container exited with no error",
            "Unreachable",
        ),
        (
            "just started",
            slow("1970-01-01T00:16:38Z"),
            "Unknown Deploying",
            "Reachable",
        ),
        (
            "probe fails",
            slow("1970-01-01T00:16:30Z"),
            "Unknown ContainersNotReady Container runs but is not ready: containers with unready status: [queue-proxy]",
            "Reachable",
        ),
    ];
    for (name, pod, want, reachability) in rows {
        let mut world = deploying();
        world.pods(&[pod]);
        let plan = world.step();
        assert_eq!(world.ready(), want, "{name}");
        assert_eq!(world.reachability(), reachability, "{name}");
        assert_eq!(
            matches!(plan.next, Next::After(_)),
            ["just started", "probe fails"].contains(&name),
            "{name}"
        );
    }
}

#[test]
fn a_class_that_nobody_serves_is_named_until_somebody_does() {
    let mut world = World::new();
    let mut revision = Revision::clone(&world.0.revision);
    revision.metadata.annotations = Some(
        [(
            keys::AUTOSCALING_CLASS.to_owned(),
            "carrots.example.com".to_owned(),
        )]
        .into(),
    );
    world.0.revision = Arc::new(revision);
    world.step();
    world.deployment(1, 0, json!([{"type": "Progressing", "status": "True"}]));
    world.step();
    let said = "Nobody serves the autoscaling class \"carrots.example.com\" of PodAutoscaler \"hello-1\"; \
                the class served here is \"kpa.autoscaling.knative.dev\".";
    assert_eq!(world.ready(), format!("Unknown Deploying {said}"));
    world.autoscaler(json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": "Queued", "message": "m"}]}));
    world.step();
    assert_eq!(world.ready(), "Unknown Deploying");
}

#[test]
fn a_rollout_that_failed_does_not_read_as_available_while_old_pods_serve() {
    let mut world = deploying();
    let ready = json!({
        "serviceName": "hello-1",
        "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "ScaleTargetInitialized", "status": "True"},
        ],
    });
    world.autoscaler(ready);
    world.deployment(1, 1, json!([{"type": "Progressing", "status": "True"}]));
    world.step();
    assert_eq!(world.ready(), "True");
    world.deployment(1, 1, json!([
        {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},
    ]));
    world.step();
    assert_eq!(world.ready(), "False ProgressDeadlineExceeded timed out");
}

#[test]
fn what_the_deployment_says() {
    let mut world = deploying();
    world.deployment(1, 0, json!([
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetCreated"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: none"},
    ]));
    world.step();
    assert_eq!(world.ready(), "False FailedCreate exceeded quota: none");
    world.deployment(1, 0, json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]));
    world.step();
    assert_eq!(world.ready(), "False ProgressDeadlineExceeded timed out");
    // Given up: the reason stays, though the pods are gone and the Deployment is content.
    world.deployment(0, 0, progressing());
    world.autoscaler(scaler(
        "False",
        "TimedOut",
        "could not be activated",
        "Unknown",
        "hello-1",
        0,
        0,
    ));
    world.step();
    assert_eq!(
        world.ready(),
        "False ProgressDeadlineExceeded Initial scale was never achieved"
    );
}

#[test]
fn a_refused_deployment_is_told_until_it_is_there() {
    let mut world = World::new();
    let plan = crate::revision::decide::refused(&world.0, "exceeded quota");
    let write = plan.writes().next().unwrap();
    assert_eq!(
        (write.kind.as_str(), plan.writes().count()),
        ("Revision", 1)
    );
    world.0.revision = Arc::new(serde_json::from_value(write.body.clone()).unwrap());
    assert_eq!(world.ready(), "False FailedCreate exceeded quota");
    assert_eq!(
        world.says(),
        [
            "ContainerHealthy=Unknown Deploying",
            "ResourcesAvailable=False FailedCreate exceeded quota"
        ]
    );
    assert!(
        crate::revision::decide::refused(&world.0, "exceeded quota")
            .writes()
            .all(|write| write.changes_nothing())
    );
    world.step();
    assert_eq!(world.ready(), "Unknown Deploying");
}

#[test]
fn what_never_worked_ends_with_knatives_reason_and_keeps_its_cause() {
    let gone = json!({
        "serviceName": "hello-1",
        "conditions": [{"type": "Ready", "status": "False", "reason": "NoTraffic", "message": "m"}],
    });
    let settled =
        json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
    // A container that ended: its exit code stays the reason, also after the deadline.
    let mut world = deploying();
    let crashed = json!({"containerStatuses": [{
        "name": "user-container", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 5, "message": "Crashed...\n"}},
    }]});
    world.pods(&[crashed]);
    let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]);
    world.deployment(1, 0, late);
    world.step();
    assert_eq!(
        world.ready(),
        "False ExitCode5 Container failed with: Crashed..."
    );
    world.pods(&[]);
    world.deployment(0, 0, settled.clone());
    world.autoscaler(gone.clone());
    world.step();
    world.step();
    assert_eq!(
        world.says()[1..],
        [
            "ContainerHealthy=False ExitCode5 Container failed with: Crashed...",
            "ResourcesAvailable=Unknown Deploying"
        ]
    );
    assert_eq!(
        world.ready(),
        "False ExitCode5 Container failed with: Crashed..."
    );
    // Pods that could not be made or placed.
    let mut world = deploying();
    world.pods(&[json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"},
    ]})]);
    world.step();
    assert_eq!(world.ready(), "False Unschedulable 0/1 nodes are available");
    world.pods(&[]);
    world.deployment(0, 0, settled);
    world.autoscaler(gone);
    world.step();
    let end =
        "False ProgressDeadlineExceeded Initial scale was never achieved: 0/1 nodes are available";
    assert_eq!(world.ready(), end);
    world.step();
    assert_eq!(world.ready(), end, "once is enough");
}
