//! What a Revision says, from its first second on, and in every kind of trouble.
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

mod life;
mod trouble;

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
