//! Faults of Kinglet itself in the midst of a pod's life.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kinglet_node::LogOptions;
use parking_lot::Mutex;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::Context;

use crate::world::{World, is_ready, processes_with, until};

/// What is told when a task of the pod `faulty` panics next.
static FAULTY: Mutex<Option<&str>> = Mutex::new(None);

/// Makes a task of one pod panic, by way of what it tells about itself.
pub(crate) struct Faults;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Faults {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(message) = *FAULTY.lock() else {
            return;
        };
        let mut told = Told::default();
        event.record(&mut told);
        if told.pod == "faulty" && told.message == message && told.container == "second" {
            *FAULTY.lock() = None;
            panic!("a fault that the test makes");
        }
    }
}

#[derive(Default)]
struct Told {
    pod: String,
    container: String,
    message: String,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let place = match field.name() {
            "pod" => &mut self.pod,
            "container" => &mut self.container,
            "message" => &mut self.message,
            _ => return,
        };
        *place = format!("{value:?}");
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter());
    all.flatten()
}

pub(crate) async fn worker() {
    recovers_from("container runs").await;
}

/// Nobody would ever hear what such a task was to tell.
pub(crate) async fn task() {
    recovers_from("container is started").await;
}

async fn recovers_from(fault: &'static str) {
    let world = World::new("fault").await;
    *FAULTY.lock() = Some(fault);
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    world
        .create(
            "faulty",
            json!({"containers": [
                {"name": "first", "command": ["sleep", "98761"], "readinessProbe": probe},
                {"name": "second", "command": ["sleep", "98762"], "readinessProbe": probe},
            ]}),
        )
        .await;
    world
        .create(
            "other",
            json!({"containers": [{"name": "first", "command": ["sleep", "98763"]}]}),
        )
        .await;
    until("it panics", || FAULTY.lock().is_none()).await;
    // What the first life started is gone, and all of it runs once more; another pod is not touched.
    let pod = world.ready("faulty").await;
    until("each program runs once", || {
        processes_with("98761") == 1 && processes_with("98762") == 1
    })
    .await;
    assert!(statuses(&pod).all(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    }));
    let other = world.ready("other").await;
    assert!(statuses(&other).all(|status| status.restart_count == 0));
    assert_eq!(processes_with("98763"), 1);
    assert_eq!(world.node.pod_count(), 2);
    // The new worker hears what the API says.
    world.delete("faulty").await;
    world.gone("faulty").await;
    until("nothing of it runs", || {
        processes_with("98761") + processes_with("98762") == 0
    })
    .await;
    world.close().await;
}

pub(crate) async fn no_probes_of_the_dead() {
    let world = World::new("deadprobe").await;
    // The last one answers the probes of the first, which ends by itself, and its own.
    let listens =
        "printf hi > /tmp/ends; printf hi > /tmp/stays; exec httpd -f -vv -p 8080 -h /tmp";
    world
        .create(
            "ends",
            json!({"restartPolicy": "Never", "containers": [
                {"name": "ends", "command": ["sh", "-c", "while ! test -e /work/end; do sleep 0.1; done"],
                 "readinessProbe": {"httpGet": {"path": "/ends", "port": 8080}, "periodSeconds": 1}, "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
                {"name": "stays", "command": ["sh", "-c", listens], "readinessProbe": {"httpGet": {"path": "/stays", "port": 8080}, "periodSeconds": 1}, "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
            ], "volumes": [{"name": "work", "emptyDir": {}}]}),
        )
        .await;
    let pod = world.wait("ends", "is ready", is_ready).await;
    let asked = async |url: &str| {
        let options = LogOptions {
            container: Some("stays".to_owned()),
            ..LogOptions::default()
        };
        world.logs("ends", options).await.matches(url).count()
    };
    assert!(asked("url:/ends").await > 0, "the container is probed");
    let work = world.scratch.path().join("node/pods");
    let uid = pod.metadata.uid.as_deref().expect("a uid");
    std::fs::write(work.join(uid).join("volumes/work/end"), "").expect("told to end");
    world
        .wait("ends", "one container has ended", |pod| {
            statuses(pod).any(|status| {
                let state = status.state.as_ref();
                status.name == "ends" && state.is_some_and(|state| state.terminated.is_some())
            })
        })
        .await;
    // Four periods of a probe beside it.
    let (before, beside) = (asked("url:/ends").await, asked("url:/stays").await);
    let give_up = Instant::now() + Duration::from_secs(30);
    while asked("url:/stays").await < beside + 4 {
        assert!(Instant::now() < give_up, "what runs is probed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = asked("url:/ends").await;
    // One attempt may have been under way.
    assert!(after <= before + 1, "{before} and then {after} probes");
    world.close().await;
}
