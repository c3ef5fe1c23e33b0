//! What all containers of a pod share: namespaces, address, volumes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{Context, Severity};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Cached, ContainerStartError, PodSandbox, Shared, namespace, start_error, uid};
use crate::network::{HostPort, NetworkError, PublishedPorts};
use crate::spec::downward::DownwardValues;
use crate::volumes::contents::{self, Content, Inputs, TokenWanted};
use crate::volumes::{PodDirectories, PreparedVolume, disk, etc};

/// Why a Pod is rejected whose host ports another Pod has, as a kubelet says it.
pub(crate) const NODE_PORTS: &str = "NodePorts";
/// A port of the host that another pod gives back at this moment is free after milliseconds.
const HOST_PORT_MAX: Duration = Duration::from_secs(5);
const HOST_PORT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn make_sandbox(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
) -> Result<Arc<PodSandbox>, ContainerStartError> {
    let failed = |reason: &'static str, message: String| {
        shared.event(pod, None, Severity::Warning, reason, message.clone());
        start_error("ContainerCreating", message)
    };
    let no_sandbox = |error: &dyn std::fmt::Display| {
        let message = format!("Failed to create pod sandbox: {error}");
        failed("FailedCreatePodSandBox", message)
    };
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        let message =
            "hostNetwork is not supported: every pod has a network of its own on this node";
        return Err(failed("FailedCreatePodSandBox", message.to_owned()));
    }
    let hostname =
        etc::hostname(pod, &shared.options.cluster_domain).map_err(|error| no_sandbox(&error))?;
    let own_users = spec.and_then(|spec| spec.host_users) == Some(false);
    let made = if own_users {
        shared.engine.sandbox_with_own_users().await
    } else {
        shared.engine.sandbox().await
    };
    let sandbox = made.map_err(|error| no_sandbox(&error))?;
    let host_ports = match publish(shared, pod, sandbox.address()).await {
        Ok(published) => published,
        Err(Unpublished::Taken) => {
            let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Err(start_error(NODE_PORTS, words.to_owned()));
        }
        Err(Unpublished::Failed(error)) => return Err(no_sandbox(&error)),
    };
    let downward = DownwardValues {
        pod_ip: sandbox.address(),
        host_ip: shared.engine.gateway(),
        node_name: shared.options.node_name.clone(),
        node_cpu_milli: shared.node_cpu_milli,
        node_memory_bytes: shared.node_memory_bytes,
    };
    let volumes = write_volumes(shared, pod, &downward)
        .await
        .map_err(|message| failed("FailedMount", message))?;
    Ok(Arc::new(PodSandbox {
        namespaces: Arc::new(sandbox),
        hostname,
        host_ports: Mutex::new(host_ports),
        volumes,
        downward,
    }))
}

/// Why ports of this machine do not lead to a Pod.
enum Unpublished {
    /// Another Pod has one of them: the scheduler was not asked.
    Taken,
    Failed(String),
}

/// Makes the ports of this machine that the Pod asks for lead to it.
async fn publish(
    shared: &Shared,
    pod: &Pod,
    address: Ipv4Addr,
) -> Result<Option<PublishedPorts>, Unpublished> {
    let wanted = HostPort::of(pod).map_err(Unpublished::Failed)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let give_up = Instant::now() + HOST_PORT_MAX;
    loop {
        match shared.engine.publish(&wanted, address).await {
            Ok(published) => return Ok(Some(published)),
            Err(NetworkError::HostPortTaken(_)) if Instant::now() < give_up => {
                tokio::time::sleep(HOST_PORT_PAUSE).await;
            }
            Err(NetworkError::HostPortTaken(_)) => return Err(Unpublished::Taken),
            Err(error) => return Err(Unpublished::Failed(error.to_string())),
        }
    }
}

/// Writes all volumes and the pod's files in `/etc`; called again, brings volumes up to date.
pub(crate) async fn write_volumes(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    downward: &DownwardValues,
) -> Result<BTreeMap<String, PreparedVolume>, String> {
    let mut tokens = BTreeMap::new();
    for wanted in contents::tokens(pod) {
        let token = request_token(shared.context(), pod, &wanted).await?;
        tokens.insert(wanted, token);
    }
    let sources = Cached {
        context: shared.context(),
        namespace: namespace(pod),
    };
    let inputs = Inputs {
        pod,
        downward,
        sources: &sources,
        tokens: &tokens,
        ca_pem: &shared.options.ca_pem,
    };
    let contents = contents_of(pod, &inputs)?;
    let fs_group = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.fs_group);
    let group = fs_group
        .map(|gid| crate::spec::container::id(gid, "group"))
        .transpose()?;
    let directories = PodDirectories::new(&shared.options.data_dir, uid(pod));
    let hosts = etc::hosts(pod, downward.pod_ip, &shared.options.cluster_domain);
    let resolv_conf = etc::resolv_conf(
        pod,
        downward.host_ip,
        &shared.options.cluster_domain,
        &shared.resolv_conf,
    );
    let hostname = etc::hostname(pod, &shared.options.cluster_domain)? + "\n";
    let written = tokio::task::spawn_blocking(move || {
        let files = [
            ("hosts", hosts.as_str()),
            ("resolv.conf", &resolv_conf),
            ("hostname", &hostname),
        ];
        disk::write_etc(&directories, &files)
            .map_err(|error| format!("writing the pod's files for /etc: {error}"))?;
        let mut places = BTreeMap::new();
        for (name, content) in contents {
            let place = disk::write(&directories, &name, &content, group).map_err(|error| {
                format!("MountVolume.SetUp failed for volume {name:?} : {error}")
            })?;
            places.insert(name, place);
        }
        Ok(places)
    });
    written.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What each volume of the pod consists of.
fn contents_of(pod: &Pod, inputs: &Inputs<'_>) -> Result<Vec<(String, Content)>, String> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.volumes.iter().flatten())
        .map(|volume| {
            let content = contents::of(volume, inputs).map_err(|why| {
                format!(
                    "MountVolume.SetUp failed for volume {:?} : {why}",
                    volume.name
                )
            })?;
            Ok((volume.name.clone(), content))
        })
        .collect()
}

pub(super) async fn request_token(
    context: &Context,
    pod: &Pod,
    wanted: &TokenWanted,
) -> Result<String, String> {
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default");
    let path = format!(
        "/api/v1/namespaces/{}/serviceaccounts/{account}/token",
        namespace(pod)
    );
    let audiences: Vec<&str> = wanted.audience.iter().map(String::as_str).collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {},
        "spec": {
            "audiences": audiences,
            "expirationSeconds": wanted.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
        },
    });
    let failed = |why: &dyn std::fmt::Display| {
        format!("failed to fetch token of service account {account:?}: {why}")
    };
    let answer = context
        .call(Method::POST, &path, Some(&body))
        .await
        .map_err(|error| failed(&error))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(&error))?;
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    token
        .map(str::to_owned)
        .ok_or_else(|| failed(&"the answer holds no token"))
}
