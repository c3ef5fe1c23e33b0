//! Binding: gives each Pod without a node the node it runs on, as soon as it appears.
//!
//! Flow: Pod event -> [`fit`](fit::fit) against the node and the ledger of what is taken -> `pods/binding`, or the
//! condition `PodScheduled=False` in the scheduler's words. Room that becomes free wakes the Pods that waited for it.

mod affinity;
mod fit;
mod host_ports;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kinglet_reconcile::{
    Change, Context, Controller, EventRecord, Key, Next, Plan, Queue, ReconcileError, Severity,
    key_of, name_of,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::pods;
use ledger::{Ledger, Taken};

pub(crate) use fit::{Resources, tolerates};
pub(crate) use host_ports::HostPort;

/// Name in events, as in Kubernetes'.
const NAME: &str = "default-scheduler";

/// How much the node gives to Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// CPU in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Pods at a time.
    pub pods: i64,
    /// Prefixes of images that the node does not start (the queue-proxy): their requests count for nothing.
    pub not_started: Vec<String>,
}

struct Binder {
    node_name: String,
    capacity: Capacity,
    ledger: Ledger,
    /// Pods that did not fit, and the one that is looked at; whether other Pods matter to them.
    waiting: Mutex<BTreeMap<Key, bool>>,
}

/// Starts the binder.
pub(crate) fn start(context: &Context, node_name: String, capacity: Capacity) {
    let binder = Arc::new(Binder {
        node_name,
        capacity,
        ledger: Ledger::default(),
        waiting: Mutex::default(),
    });
    let controller = Controller::<Pod>::only(NAME, wants_a_node)
        .reads::<Node>()
        .reads::<Namespace>()
        .workers(1);
    let queue = controller.queue();
    let (observer, wake) = (Arc::clone(&binder), queue.clone());
    context
        .cache::<Pod>()
        .observe(move |change| observer.follow(change, &wake));
    let (observer, wake) = (Arc::clone(&binder), queue);
    context
        .cache::<Node>()
        .observe(move |_| observer.wake_waiting(&wake));
    controller.run(context, move |context, key| {
        reconcile(context, Arc::clone(&binder), key)
    });
}

fn wants_a_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ours = spec
        .and_then(|spec| spec.scheduler_name.as_deref())
        .is_none_or(|name| name == NAME || name.is_empty());
    let gated = spec
        .and_then(|spec| spec.scheduling_gates.as_ref())
        .is_some_and(|gates| !gates.is_empty());
    ours && !gated && pods::node_of(pod).is_none() && pods::is_active(pod)
}

impl Binder {
    fn follow(&self, change: &Change<Pod>, queue: &Queue) {
        let released = match change {
            Change::Applied { new, old } if !pods::is_terminal(new) => {
                if let Some(node) = pods::node_of(new) {
                    self.ledger.take(&key_of(&**new), node, self.wanted(new));
                    self.waiting.lock().remove(&key_of(&**new));
                    let is_news = old.as_ref().is_none_or(|old| {
                        pods::node_of(old).is_none() || old.metadata.labels != new.metadata.labels
                    });
                    if is_news {
                        self.wake_those_who_mind(queue);
                    }
                }
                false
            }
            Change::Applied { new: pod, .. } | Change::Deleted(pod) => {
                self.waiting.lock().remove(&key_of(&**pod));
                self.ledger.release(&key_of(&**pod))
            }
            Change::Resync => false,
        };
        if released {
            self.wake_waiting(queue);
        }
    }

    fn wanted(&self, pod: &Pod) -> Taken {
        Taken {
            resources: fit::request(pod, &self.capacity.not_started),
            host_ports: host_ports::of(pod),
        }
    }

    fn wake_waiting(&self, queue: &Queue) {
        for key in self.waiting.lock().keys() {
            queue.add(key.clone());
        }
    }

    /// A Pod has come, or has other labels: those may run now that want to be with it.
    fn wake_those_who_mind(&self, queue: &Queue) {
        for (key, _) in self.waiting.lock().iter().filter(|(_, minds)| **minds) {
            queue.add(key.clone());
        }
    }
}

async fn reconcile(
    context: Context,
    binder: Arc<Binder>,
    key: Key,
) -> Result<Next, ReconcileError> {
    let Some(pod) = context
        .cache::<Pod>()
        .find(&key)
        .filter(|pod| wants_a_node(pod))
    else {
        binder.waiting.lock().remove(&key);
        return Ok(Next::Done);
    };
    // Before the room is looked at, so that room that comes free meanwhile wakes this Pod again.
    binder
        .waiting
        .lock()
        .insert(key.clone(), affinity::minds_others(&pod));
    let node = context.cache::<Node>().get("", &binder.node_name);
    let node_state = fit::ObservedNode {
        name: &binder.node_name,
        node: node.as_deref(),
        allocatable: fit::allocatable(node.as_deref(), &binder.capacity),
        taken: binder.ledger.taken(&binder.node_name),
        host_ports: binder.ledger.host_ports(&binder.node_name),
        not_started: &binder.capacity.not_started,
    };
    let others = neighbours(&context, &binder.node_name);
    let labels = |name: &str| {
        let namespace = context.cache::<Namespace>().get("", name)?;
        Some(namespace.metadata.labels.clone().unwrap_or_default())
    };
    let fits =
        fit::fit(&pod, &node_state).and_then(|()| fit::beside(&pod, &node_state, &others, &labels));
    match fits {
        Ok(()) => bind(&context, &binder, &pod, &key).await,
        Err(misfit) => {
            let plan = refuse(&pod, &misfit.message(), &context);
            context.apply(plan).await
        }
    }
}

/// Pods of the node that have not ended.
fn neighbours(context: &Context, node: &str) -> Vec<Arc<Pod>> {
    let mut all = context.cache::<Pod>().all();
    all.retain(|pod| pods::node_of(pod) == Some(node) && !pods::is_terminal(pod));
    all
}

async fn bind(
    context: &Context,
    binder: &Binder,
    pod: &Pod,
    key: &Key,
) -> Result<Next, ReconcileError> {
    let node = &binder.node_name;
    // Taken at once, so that the next Pod does not count on the same room; given back if the binding fails.
    binder.ledger.take(key, node, binder.wanted(pod));
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": *key.name, "namespace": *key.namespace, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    if let Err(error) = context.post_subresource(pod, "binding", &body).await {
        binder.ledger.release(key);
        return if error.is_not_found() || error.is_conflict() {
            Ok(Next::Done)
        } else {
            Err(error)
        };
    }
    binder.waiting.lock().remove(key);
    let words = format!("Successfully assigned {key} to {node}");
    context.event(EventRecord::new(pod, Severity::Normal, "Scheduled", words));
    Ok(Next::Done)
}

fn refuse(pod: &Pod, message: &str, context: &Context) -> Plan {
    let mut status = pod.status.clone().unwrap_or_default();
    let known = pods::condition(pod, "PodScheduled");
    let unchanged = known.is_some_and(|known| {
        known.status == "False"
            && known.reason.as_deref() == Some("Unschedulable")
            && known.message.as_deref() == Some(message)
    });
    let mut plan = Plan::new();
    if unchanged {
        return plan;
    }
    let since = known
        .filter(|known| known.status == "False")
        .and_then(|known| known.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(
            since.unwrap_or(Time(crate::time::whole_seconds(context.now()))),
        ),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    };
    put_condition(&mut status, condition);
    tracing::debug!(pod = name_of(pod), message, "pod does not fit");
    plan.status(pod, &status);
    plan.warning(pod, "FailedScheduling", message);
    plan
}

fn put_condition(status: &mut PodStatus, condition: PodCondition) {
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) => *known = condition,
        None => all.push(condition),
    }
}

/// Labels that a node has even before its object says so.
fn default_labels(name: &str) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}
