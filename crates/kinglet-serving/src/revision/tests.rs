//! What a Revision says, from its first second on, and in every kind of trouble.
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kinglet_api::autoscaling::PodAutoscaler;
use kinglet_api::config::Configs;
use kinglet_api::keys;
use kinglet_api::serving::{ContainerStatus, Revision};
use kinglet_reconcile::{Next, Plan, Verb};
use serde_json::{Value, json};

use super::decide::decide;
use super::digests::{Known, Resolved};
use super::observe::RevisionObserved;

const NOW: i64 = 1_000;

/// A Revision with its surroundings, moved from reconcile to reconcile.
struct World(RevisionObserved);

impl World {
    fn new() -> Self {
        let revision: Revision = serde_json::from_value(json!({
            "metadata": {
                "name": "hello-1", "namespace": "a", "uid": "r-1", "generation": 1,
                "labels": {"serving.knative.dev/routingState": "active", "serving.knative.dev/configuration": "hello"},
            },
            "spec": {"containers": [{"name": "user-container", "image": "x:1"}]},
        }))
        .unwrap();
        let image = ContainerStatus {
            name: "user-container".to_owned(),
            image_digest: String::new(),
        };
        Self(RevisionObserved {
            revision: Arc::new(revision),
            images: Known::Resolved(Resolved {
                containers: vec![image],
                init_containers: Vec::new(),
            }),
            deployment: None,
            autoscaler: None,
            caches: Vec::new(),
            pods: Vec::new(),
            probe: None,
            configs: Arc::new(Configs::default()),
            now: Timestamp::from_second(NOW).unwrap(),
        })
    }

    /// Looks, and takes over what was written.
    fn step(&mut self) -> Plan {
        let plan = decide(&self.0);
        for write in plan.writes().filter(|write| !write.changes_nothing()) {
            let mut body = write.body.clone();
            body["metadata"]["uid"] = json!(format!("{}-uid", write.kind));
            match (write.kind.as_str(), &write.verb) {
                ("Revision", _) => {
                    body["metadata"]["uid"] = json!("r-1");
                    self.0.revision = Arc::new(serde_json::from_value(body).unwrap());
                }
                ("Deployment", _) => {
                    self.0.deployment = Some(Arc::new(serde_json::from_value(body).unwrap()))
                }
                ("PodAutoscaler", _) => {
                    self.0.autoscaler = Some(Arc::new(serde_json::from_value(body).unwrap()))
                }
                ("Image", _) => self
                    .0
                    .caches
                    .push(Arc::new(serde_json::from_value(body).unwrap())),
                (other, _) => panic!("{other} written"),
            }
        }
        plan
    }

    fn deployment(&mut self, replicas: i32, ready: i32, conditions: Value) {
        let mut next = Deployment::clone(self.0.deployment.as_ref().unwrap());
        next.spec.as_mut().unwrap().replicas = Some(replicas);
        next.status =
            serde_json::from_value(json!({"readyReplicas": ready, "conditions": conditions}))
                .unwrap();
        self.0.deployment = Some(Arc::new(next));
    }

    fn autoscaler(&mut self, status: Value) {
        let mut next = PodAutoscaler::clone(self.0.autoscaler.as_ref().unwrap());
        next.status = serde_json::from_value(status).unwrap();
        self.0.autoscaler = Some(Arc::new(next));
    }

    fn pods(&mut self, statuses: &[Value]) {
        self.0.pods = statuses
            .iter()
            .map(|status| {
                Arc::new(
                    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status}))
                        .unwrap(),
                )
            })
            .collect();
    }

    fn says(&self) -> Vec<String> {
        let conditions = &self.0.revision.status.common.conditions;
        let words = |condition: &kinglet_api::duck::Condition| {
            format!(
                "{}={} {} {}",
                condition.kind,
                condition.status.as_str(),
                condition.reason,
                condition.message
            )
            .trim_end()
            .to_owned()
        };
        conditions
            .iter()
            .filter(|condition| condition.kind != "Ready")
            .map(words)
            .collect()
    }

    fn ready(&self) -> String {
        let ready = self.0.revision.status.common.condition("Ready").unwrap();
        format!(
            "{} {} {}",
            ready.status.as_str(),
            ready.reason,
            ready.message
        )
        .trim_end()
        .to_owned()
    }

    fn reachability(&self) -> Value {
        serde_json::to_value(self.0.autoscaler.as_ref().unwrap().spec.reachability).unwrap()
    }
}

fn scaler(
    ready: &str,
    reason: &str,
    message: &str,
    initialized: &str,
    service: &str,
    actual: i32,
    desired: i32,
) -> Value {
    json!({
        "observedGeneration": 1, "serviceName": service, "metricsServiceName": "", "actualScale": actual, "desiredScale": desired,
        "conditions": [
            {"type": "Ready", "status": ready, "reason": reason, "message": message},
            {"type": "ScaleTargetInitialized", "status": initialized},
        ],
    })
}

fn progressing() -> Value {
    json!([{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}])
}

fn container(state: Value, last: Value, ready: bool) -> Value {
    json!({
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers with unready status: [queue-proxy]"}],
        "containerStatuses": [
            {"name": "queue-proxy", "ready": false, "restartCount": 0, "image": "q", "imageID": "", "state": {"running": {}}},
            {"name": "user-container", "ready": ready, "restartCount": 0, "image": "x", "imageID": "", "state": state, "lastState": last},
        ],
    })
}

/// A world whose Deployment and PodAutoscaler are there and on their way.
fn deploying() -> World {
    let mut world = World::new();
    world.step();
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
    world
}

#[test]
fn from_nothing_to_ready_and_to_zero() {
    let mut world = World::new();
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

    world.deployment(1, 1, progressing());
    world.step();
    assert_eq!(
        world.says()[1..],
        [
            "ContainerHealthy=True",
            "ResourcesAvailable=Unknown Deploying"
        ]
    );

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

    // Waking up: slowness is no news.
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
fn a_refused_deployment_is_told_until_it_is_there() {
    let mut world = World::new();
    let plan = super::decide::refused(&world.0, "exceeded quota");
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
        super::decide::refused(&world.0, "exceeded quota")
            .writes()
            .all(|write| write.changes_nothing())
    );
    world.step();
    assert_eq!(world.ready(), "Unknown Deploying");
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
