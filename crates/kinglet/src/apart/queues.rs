//! The queue-proxy of each pod: a process in the network of the pod, with the environment that its container has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kinglet_node::ProxiedPod;
use kinglet_process::Tasks;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::children::{self, Child, Program};

const NAME: &str = "queue-proxy";
/// How long no request may have come before one that drains stops. A queue-proxy on a cluster gives 30 s to those who have
/// not heard yet that its pod goes; here everybody hears it within milliseconds.
const QUIET: &str = "1s";

/// All queue-proxies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queues(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    log: String,
    tasks: Tasks,
    host: Mutex<Option<Ipv4Addr>>,
    by_address: Mutex<HashMap<IpAddr, Arc<Child>>>,
    /// No request will come any more: there is nothing to wait for.
    ended: CancellationToken,
}

/// Ends a queue-proxy when dropped.
pub(super) struct Queue {
    queues: Queues,
    address: IpAddr,
    child: Arc<Child>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut all = self.queues.0.by_address.lock();
        let is_this = |child: &Arc<Child>| Arc::ptr_eq(child, &self.child);
        if all.get(&self.address).is_some_and(is_this) {
            all.remove(&self.address);
        }
    }
}

impl Queues {
    pub(super) fn new(folder: &Path, log: &str, tasks: &Tasks) -> Self {
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            log: log.to_owned(),
            tasks: tasks.clone(),
            host: Mutex::default(),
            by_address: Mutex::default(),
            ended: CancellationToken::new(),
        }))
    }

    /// The machine's address, by which pods know it.
    pub(super) fn set_host(&self, host: Ipv4Addr) {
        *self.0.host.lock() = Some(host);
    }

    /// Starts the queue-proxy of a pod.
    pub(super) fn start(&self, pod: ProxiedPod) -> Queue {
        let inner = &self.0;
        let ProxiedPod {
            pod,
            address,
            network,
        } = pod;
        let variables = environment(&pod, address, *inner.host.lock());
        let log = inner.log.clone();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let make = move || {
            let mut command = children::command("queue", &log);
            command.args(["--quiet", QUIET]).envs(variables.clone());
            command
        };
        let program = Program::new(&inner.folder, format!("queue-{namespace}-{name}"), make);
        let (child, keeping) = Child::keep(program.inside(network));
        inner.tasks.spawn("queue-process", keeping);
        let (child, address) = (Arc::new(child), IpAddr::V4(address));
        inner.by_address.lock().insert(address, Arc::clone(&child));
        Queue {
            queues: self.clone(),
            address,
            child,
        }
    }

    /// Lets the queue-proxy at `address` finish. The caller bounds it.
    pub(super) fn drain(&self, address: IpAddr) -> impl Future<Output = ()> + Send + use<> {
        let found = self.0.by_address.lock().get(&address).cloned();
        let ended = self.0.ended.clone();
        async move {
            let Some(child) = found else { return };
            tokio::select! {
                () = ended.cancelled() => {}
                () = child.finish_patiently() => {}
            }
        }
    }

    /// Nobody waits for requests any more.
    pub(super) fn end(&self) {
        self.0.ended.cancel();
    }
}

/// The environment of the pod's queue-proxy container.
fn environment(pod: &Pod, address: Ipv4Addr, host: Option<Ipv4Addr>) -> Vec<(String, String)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ours = |container: &&Container| container.name == NAME;
    let variables = containers
        .filter(ours)
        .flat_map(|container| container.env.iter().flatten());
    variables
        .map(|variable| {
            let value = value(variable, pod, address, host);
            (variable.name.clone(), value)
        })
        .collect()
}

/// A variable's own value, or the field of the pod that Knative's template names.
fn value(variable: &EnvVar, pod: &Pod, address: Ipv4Addr, host: Option<Ipv4Addr>) -> String {
    let source = variable.value_from.as_ref();
    let Some(field) = source.and_then(|source| source.field_ref.as_ref()) else {
        return variable.value.clone().unwrap_or_default();
    };
    match field.field_path.as_str() {
        "metadata.name" => pod.metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => pod.metadata.namespace.clone().unwrap_or_default(),
        "status.podIP" => address.to_string(),
        "status.hostIP" => host.map(|host| host.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_environment_is_that_of_the_container() {
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [
                {"name": "user-container", "env": [{"name": "SECRET", "value": "x"}]},
                {"name": "queue-proxy", "env": [
                    {"name": "USER_PORT", "value": "8080"},
                    {"name": "EMPTY"},
                    {"name": "SERVING_POD", "valueFrom": field("metadata.name")},
                    {"name": "SERVING_POD_IP", "valueFrom": field("status.podIP")},
                    {"name": "HOST_IP", "valueFrom": field("status.hostIP")},
                ]},
            ]},
        }))
        .expect("a pod");
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let read = environment(&pod, address, Some(Ipv4Addr::new(10, 0, 0, 1)));
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            read,
            [
                ("USER_PORT", "8080"),
                ("EMPTY", ""),
                ("SERVING_POD", "p"),
                ("SERVING_POD_IP", "10.0.0.2"),
                ("HOST_IP", "10.0.0.1"),
            ]
        );
    }
}
