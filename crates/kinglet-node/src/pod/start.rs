//! Starting one container: image, volumes, program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, ServiceAccount};
use kinglet_image::{Credentials, ImageError, PullPolicy, ReadyImage};
use kinglet_reconcile::{Context, EventRecord, Severity};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::container::{Running, StartError};
use crate::engine::{ContainerStart, Engine, Sandbox};
use crate::options::Options;
use crate::pod::container_state;
use crate::spec::container as program;
use crate::spec::downward::DownwardValues;
use crate::spec::environment::{self, Sources};
use crate::volumes::contents::{self, Inputs, TokenWanted};
use crate::volumes::{PodDirectories, disk, etc, mounts};
use crate::wire::Process;

/// What all pods of a node share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) engine: Engine,
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory_bytes: i64,
    /// This machine's own `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
}

impl Shared {
    pub(crate) fn context(&self) -> &Context {
        &self.options.context
    }

    /// Records an Event about a pod, or about one of its containers.
    pub(crate) fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut note = EventRecord::new(pod, severity, reason, message);
        note.about.field_path = container.map(|name| {
            let init = pod
                .spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten())
                .any(|container| container.name == name);
            format!(
                "spec.{}{{{name}}}",
                if init { "initContainers" } else { "containers" }
            )
        });
        self.context().event(note);
    }
}

/// What all containers of a pod share.
#[derive(Debug)]
pub(crate) struct PodSandbox {
    pub(crate) namespaces: Arc<Sandbox>,
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    pub(crate) downward: DownwardValues,
}

/// Made once per pod, by whichever container comes first.
pub(crate) type SharedSandbox = Arc<OnceCell<Arc<PodSandbox>>>;

/// Why a container did not start, as its waiting reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerStartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// It was started and ended at once: counts as a crash (a missing program).
    pub(crate) crashed: bool,
}

/// A started container.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) image: Arc<ReadyImage>,
    pub(crate) process: Process,
    pub(crate) stop_signal: i32,
}

/// Does it all. The image stays held as long as the result lives.
pub(crate) async fn container(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    name: &str,
    attempt: u32,
    sandbox: &SharedSandbox,
) -> Result<Started, ContainerStartError> {
    let container = container_state::container(pod, name).ok_or_else(|| {
        start_error(
            "CreateContainerConfigError",
            format!("container {name:?} is not in the pod"),
        )
    })?;
    let ready = async {
        sandbox
            .get_or_try_init(|| make_sandbox(shared, pod))
            .await
            .cloned()
    };
    let (image, sandbox) = tokio::join!(image(shared, pod, container), ready);
    let (image, sandbox) = (image?, sandbox?);
    let directories = PodDirectories::new(&shared.options.data_dir, uid(pod));
    let start = plan(
        shared,
        pod,
        container,
        attempt,
        &image,
        &sandbox,
        &directories,
    )
    .map_err(|message| {
        shared.event(
            pod,
            Some(name),
            Severity::Warning,
            "Failed",
            format!("Error: {message}"),
        );
        start_error("CreateContainerConfigError", message)
    })?;
    let log = directories.termination_log(name, attempt);
    let directory = start.directory.clone();
    let made = tokio::task::spawn_blocking(move || {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory)?;
        disk::write_small(&log, "", 0o666)
    });
    made.await
        .map_err(std::io::Error::other)
        .and_then(|made| made)
        .map_err(|error| start_error("CreateContainerError", error.to_string()))?;
    shared.event(
        pod,
        Some(name),
        Severity::Normal,
        "Created",
        format!("Created container: {name}"),
    );
    let process = start.process.clone();
    match shared.engine.start(&sandbox.namespaces, start).await {
        Ok(running) => {
            shared.event(
                pod,
                Some(name),
                Severity::Normal,
                "Started",
                format!("Started container {name}"),
            );
            Ok(Started {
                running,
                stop_signal: program::stop_signal(&image.config),
                image,
                process,
            })
        }
        Err(error) => {
            shared.event(
                pod,
                Some(name),
                Severity::Warning,
                "Failed",
                format!("Error: {error}"),
            );
            Err(match error {
                StartError::Config(message) => start_error("CreateContainerConfigError", message),
                StartError::Setup(message) => start_error("CreateContainerError", message),
                StartError::Program(message) => ContainerStartError {
                    reason: "StartError",
                    message,
                    crashed: true,
                },
            })
        }
    }
}

fn start_error(reason: &'static str, message: String) -> ContainerStartError {
    ContainerStartError {
        reason,
        message,
        crashed: false,
    }
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

async fn image(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    container: &Container,
) -> Result<Arc<ReadyImage>, ContainerStartError> {
    let name = Some(container.name.as_str());
    let reference = container.image.as_deref().unwrap_or("");
    let policy = match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    };
    let images = &shared.options.images;
    if let Ok(ready) = images
        .ensure(reference, PullPolicy::Never, &Credentials::default())
        .await
        && policy != PullPolicy::Always
    {
        shared.event(
            pod,
            name,
            Severity::Normal,
            "Pulled",
            format!("Container image {reference:?} already present on machine"),
        );
        return Ok(ready);
    }
    if policy != PullPolicy::Never {
        shared.event(
            pod,
            name,
            Severity::Normal,
            "Pulling",
            format!("Pulling image {reference:?}"),
        );
    }
    let began = tokio::time::Instant::now();
    match images
        .ensure(reference, policy, &credentials(shared.context(), pod))
        .await
    {
        Ok(ready) => {
            let took = began.elapsed();
            shared.event(
                pod,
                name,
                Severity::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {reference:?} in {}ms",
                    took.as_millis()
                ),
            );
            Ok(ready)
        }
        Err(error) => {
            let reason = error.reason();
            let message = match &error {
                ImageError::InvalidName { message, .. } => format!(
                    "Failed to apply default image tag {reference:?}: couldn't parse image name {reference:?}: {message}"
                ),
                _ => format!("Failed to pull image {reference:?}: {error}"),
            };
            shared.event(pod, name, Severity::Warning, "Failed", message);
            shared.event(
                pod,
                name,
                Severity::Warning,
                "Failed",
                format!("Error: {reason}"),
            );
            Err(start_error(reason, error.to_string()))
        }
    }
}

/// Pull secrets of the pod, then of its service account.
fn credentials(context: &Context, pod: &Pod) -> Credentials {
    let mut all = Credentials::default();
    let spec = pod.spec.as_ref();
    let account = spec
        .and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default");
    let of_account = context
        .cache::<ServiceAccount>()
        .get(namespace(pod), account);
    let own = spec
        .into_iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let theirs = of_account
        .iter()
        .flat_map(|account| account.image_pull_secrets.iter().flatten());
    for reference in theirs.chain(own) {
        let Some(secret) = context
            .cache::<Secret>()
            .get(namespace(pod), &reference.name)
        else {
            continue;
        };
        for key in [".dockerconfigjson", ".dockercfg"] {
            if let Some(document) = secret.data.as_ref().and_then(|data| data.get(key))
                && let Err(why) = all.add_docker_config(&document.0)
            {
                tracing::warn!(
                    secret = reference.name,
                    why,
                    "an image pull secret cannot be read"
                );
            }
        }
    }
    all
}

/// Reads from the shared caches.
struct Cached<'a> {
    context: &'a Context,
    namespace: &'a str,
}

impl Sources for Cached<'_> {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.context.cache::<ConfigMap>().get(self.namespace, name)
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.context.cache::<Secret>().get(self.namespace, name)
    }
}

async fn make_sandbox(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
) -> Result<Arc<PodSandbox>, ContainerStartError> {
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        let message =
            "hostNetwork is not supported: every pod has a network of its own on this node"
                .to_owned();
        shared.event(
            pod,
            None,
            Severity::Warning,
            "FailedCreatePodSandBox",
            message.clone(),
        );
        return Err(start_error("ContainerCreating", message));
    }
    let sandbox = shared.engine.sandbox().await.map_err(|error| {
        let message = format!("Failed to create pod sandbox: {error}");
        shared.event(
            pod,
            None,
            Severity::Warning,
            "FailedCreatePodSandBox",
            message.clone(),
        );
        start_error("ContainerCreating", message)
    })?;
    let downward = DownwardValues {
        pod_ip: sandbox.address(),
        host_ip: shared.engine.gateway(),
        node_name: shared.options.node_name.clone(),
        node_cpu_milli: shared.node_cpu_milli,
        node_memory_bytes: shared.node_memory_bytes,
    };
    let volumes = write_volumes(shared, pod, &downward)
        .await
        .map_err(|message| {
            shared.event(pod, None, Severity::Warning, "FailedMount", message.clone());
            start_error("ContainerCreating", message)
        })?;
    Ok(Arc::new(PodSandbox {
        namespaces: Arc::new(sandbox),
        volumes,
        downward,
    }))
}

/// Writes all volumes and the pod's files in `/etc`; called again, brings volumes up to date.
pub(crate) async fn write_volumes(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    downward: &DownwardValues,
) -> Result<BTreeMap<String, PathBuf>, String> {
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
    let all = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let contents = all
        .map(|volume| {
            let content = contents::of(volume, &inputs).map_err(|why| {
                format!(
                    "MountVolume.SetUp failed for volume {:?} : {why}",
                    volume.name
                )
            })?;
            Ok((volume.name.clone(), content))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let fs_group = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.fs_group);
    let group = fs_group.and_then(|gid| u32::try_from(gid).ok());
    let directories = PodDirectories::new(&shared.options.data_dir, uid(pod));
    let hosts = etc::hosts(pod, downward.pod_ip, &shared.options.cluster_domain);
    let resolv_conf = etc::resolv_conf(
        pod,
        downward.host_ip,
        &shared.options.cluster_domain,
        &shared.resolv_conf,
    );
    let hostname = etc::hostname(pod) + "\n";
    let written = tokio::task::spawn_blocking(move || {
        // A container may have changed its own copy; it is written once.
        if !directories.etc("hosts").exists() {
            for (file, text) in [
                ("hosts", &hosts),
                ("resolv.conf", &resolv_conf),
                ("hostname", &hostname),
            ] {
                disk::write_small(&directories.etc(file), text, 0o644)
                    .map_err(|error| format!("writing /etc/{file}: {error}"))?;
            }
        }
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

async fn request_token(
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

fn plan(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &ReadyImage,
    sandbox: &PodSandbox,
    directories: &PodDirectories,
) -> Result<ContainerStart, String> {
    let hostname = etc::hostname(pod);
    let sources = Cached {
        context: shared.context(),
        namespace: namespace(pod),
    };
    let node = api_variables(
        &shared.engine.gateway().to_string(),
        shared.options.api_port,
    );
    let known: BTreeMap<String, String> = node.iter().cloned().collect();
    let own = environment::of(pod, container, &sandbox.downward, &known, &sources)?;
    let environment = program::environment(&hostname, &image.config, &node, own);
    let process = program::process(pod, container, &image.config, &environment)?;
    Ok(ContainerStart {
        hostname,
        directory: directories.container(&container.name, attempt),
        layers: image.layers.clone(),
        mounts: mounts::of(
            container,
            directories,
            attempt,
            &sandbox.volumes,
            &environment,
        )?,
        read_only_root: container
            .security_context
            .as_ref()
            .and_then(|context| context.read_only_root_filesystem)
            == Some(true),
        process,
        limits: program::limits(container),
    })
}

/// How programs find the API server (client libraries read these).
fn api_variables(host: &str, port: u16) -> Vec<(String, String)> {
    let url = format!("tcp://{host}:{port}");
    [
        ("KUBERNETES_SERVICE_HOST", host.to_owned()),
        ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        ("KUBERNETES_PORT", url.clone()),
        (&format!("KUBERNETES_PORT_{port}_TCP"), url),
        (
            &format!("KUBERNETES_PORT_{port}_TCP_PROTO"),
            "tcp".to_owned(),
        ),
        (
            &format!("KUBERNETES_PORT_{port}_TCP_PORT"),
            port.to_string(),
        ),
        (&format!("KUBERNETES_PORT_{port}_TCP_ADDR"), host.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
