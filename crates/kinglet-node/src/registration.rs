//! The node as an object: capacity, conditions, a Lease that says it is alive.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kinglet_process::Tasks;
use kinglet_reconcile::ReconcileError;
use serde_json::{Value, json};

use crate::pod::start::Shared;

/// How often the Lease is renewed (a kubelet's number); whoever watches gives up after 40 s.
const RENEW_PERIOD: Duration = Duration::from_secs(10);
const LEASE_SECONDS: u32 = 40;
/// Pods a node takes: what its network has addresses for, in a round number.
const PODS_MAX: u32 = 1000;
/// Until the API server answers.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Thousandths of cores, and bytes of memory.
pub(crate) fn capacity() -> (i64, i64) {
    let cores = std::thread::available_parallelism()
        .map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    let info = rustix::system::sysinfo();
    let bytes = i64::try_from(info.totalram)
        .unwrap_or(i64::MAX)
        .saturating_mul(i64::from(info.mem_unit.max(1)));
    (cores * 1000, bytes)
}

/// Registers the node and keeps saying that it is alive.
pub(crate) fn start(shared: &Arc<Shared>, tasks: &Tasks) {
    let (shared, stop) = (Arc::clone(shared), tasks.token());
    tasks.restarted("node-registration", move || {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep_registered(&shared) => {}
            }
        }
    });
}

async fn keep_registered(shared: &Shared) {
    while let Err(error) = register(shared).await {
        tracing::debug!(%error, "the Node object could not be written");
        tokio::time::sleep(RETRY_DELAY).await;
    }
    loop {
        if let Err(error) = renew(shared).await {
            // A cluster without Leases loses nothing.
            tracing::debug!(%error, "the node's Lease could not be renewed");
        }
        tokio::time::sleep(RENEW_PERIOD).await;
    }
}

async fn register(shared: &Shared) -> Result<(), ReconcileError> {
    let name = &shared.options.node_name;
    let labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
    });
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}});
    match shared
        .context()
        .call(Method::POST, "/api/v1/nodes", Some(&node))
        .await
    {
        Ok(_) | Err(ReconcileError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    let path = format!("/api/v1/nodes/{name}");
    let current = shared.context().call(Method::GET, &path, None).await?;
    let Ok(mut current) = serde_json::from_slice::<Value>(&current) else {
        return Ok(());
    };
    let status = status(shared);
    if current.get("status") == Some(&status) {
        return Ok(());
    }
    if let Some(object) = current.as_object_mut() {
        object.insert("status".to_owned(), status);
    }
    shared
        .context()
        .call(Method::PUT, &format!("{path}/status"), Some(&current))
        .await
        .map(|_| ())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(shared: &Shared) -> Value {
    let now = shared.context().now();
    let now = jiff::Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string();
    let amounts = json!({
        "cpu": (shared.node_cpu_milli / 1000).to_string(),
        "memory": format!("{}Ki", shared.node_memory_bytes / 1024),
        "pods": PODS_MAX.to_string(),
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now});
    let uname = rustix::system::uname();
    json!({
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [
            {"type": "InternalIP", "address": shared.engine.gateway().to_string()},
            {"type": "Hostname", "address": shared.options.node_name},
        ],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kinglet is ready to run pods"),
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": "linux",
            "kernelVersion": uname.release().to_string_lossy(),
            "kubeletVersion": concat!("v1.34.0-kinglet.", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "containerRuntimeVersion": concat!("kinglet://", env!("CARGO_PKG_VERSION")),
            "osImage": os_image(),
            "machineID": "",
            "systemUUID": "",
            "bootID": std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim(),
        },
    })
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

async fn renew(shared: &Shared) -> Result<(), ReconcileError> {
    let name = &shared.options.node_name;
    let base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    // MicroTime carries six digits.
    let now = format!("{:.6}", shared.context().now());
    let spec =
        json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
    match shared
        .context()
        .call(Method::GET, &format!("{base}/{name}"), None)
        .await
    {
        Ok(current) => {
            let Ok(mut current) = serde_json::from_slice::<Value>(&current) else {
                return Ok(());
            };
            if let Some(object) = current.as_object_mut() {
                object.insert("spec".to_owned(), lease["spec"].clone());
            }
            shared
                .context()
                .call(Method::PUT, &format!("{base}/{name}"), Some(&current))
                .await
                .map(|_| ())
        }
        Err(ReconcileError::NotFound { .. }) => shared
            .context()
            .call(Method::POST, base, Some(&lease))
            .await
            .map(|_| ()),
        Err(error) => Err(error),
    }
}
