//! Starting one container: image, volumes, program.

mod image;
mod sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kinglet_image::ReadyImage;
use kinglet_process::{Egress, Trash};
use kinglet_reconcile::{Context, EventRecord, Severity};
use parking_lot::Mutex;
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;

use crate::container::{Running, StartError};
use crate::engine::{ContainerStart, Engine, Sandbox};
use crate::network::PublishedPorts;
use crate::options::Options;
use crate::pod::{container_state, status};
use crate::session;
use crate::spec::container as program;
use crate::spec::downward::DownwardValues;
use crate::spec::environment::{self, Sources};
use crate::spec::{resources, security};
use crate::volumes::{PodDirectories, PreparedVolume, disk, mounts};
use crate::wire::Process;

pub(crate) use sandbox::{NODE_PORTS, write_volumes};

/// What all pods of a node share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) engine: Engine,
    /// The way to hosts that Pods name themselves.
    pub(crate) egress: Egress,
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory_bytes: i64,
    /// This machine's own `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// Where files of containers go when they are not needed any more.
    pub(crate) trash: Arc<Trash>,
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
        let mut record = EventRecord::new(pod, severity, reason, message);
        record.about.field_path = container.map(|name| {
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
        self.context().event(record);
    }
}

/// What all containers of a pod share.
#[derive(Debug)]
pub(crate) struct PodSandbox {
    pub(crate) namespaces: Arc<Sandbox>,
    /// What containers see as the name of their host.
    pub(crate) hostname: String,
    /// Ports of this machine that lead here, until the pod has ended.
    pub(crate) host_ports: Mutex<Option<PublishedPorts>>,
    pub(crate) volumes: BTreeMap<String, PreparedVolume>,
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
    /// Its standard input, if it has one and no terminal.
    pub(crate) stdin: Option<pipe::Sender>,
}

/// Makes what the container needs, its pod's sandbox included, and starts it. The image stays held as long as the result lives.
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
    tracing::debug!(
        pod = pod.metadata.name,
        container = name,
        attempt,
        "container is started"
    );
    let tell = |severity, reason: &str, message: String| {
        shared.event(pod, Some(name), severity, reason, message);
    };
    let ready = async {
        sandbox
            .get_or_try_init(|| sandbox::make_sandbox(shared, pod))
            .await
            .cloned()
    };
    let (image, sandbox) = tokio::join!(image::image(shared, pod, container), ready);
    let (image, sandbox) = (image?, sandbox?);
    let directories = PodDirectories::new(&shared.options.data_dir, uid(pod));
    let mut start = plan(
        shared,
        pod,
        container,
        attempt,
        &image,
        &sandbox,
        &directories,
    )
    .map_err(|message| {
        tell(Severity::Warning, "Failed", format!("Error: {message}"));
        start_error("CreateContainerConfigError", message)
    })?;
    let log = directories.termination_log(name, attempt);
    make_files(shared, start.directory.clone(), log)
        .await
        .map_err(|error| start_error("CreateContainerError", error.to_string()))?;
    tell(
        Severity::Normal,
        "Created",
        format!("Created container: {name}"),
    );
    let stdin = connect_stdin(container, &mut start)
        .map_err(|error| start_error("CreateContainerError", error.to_string()))?;
    let process = start.process.clone();
    match shared.engine.start(&sandbox.namespaces, start).await {
        Ok(running) => {
            tell(
                Severity::Normal,
                "Started",
                format!("Started container {name}"),
            );
            Ok(Started {
                running,
                stop_signal: program::stop_signal(&image.config),
                image,
                process,
                stdin,
            })
        }
        Err(error) => {
            tell(Severity::Warning, "Failed", format!("Error: {error}"));
            Err(as_waiting_reason(error))
        }
    }
}

/// Makes the empty directory of one life of a container, and the file for its last words.
async fn make_files(shared: &Shared, directory: PathBuf, log: PathBuf) -> std::io::Result<()> {
    let trash = Arc::clone(&shared.trash);
    let made = tokio::task::spawn_blocking(move || {
        trash.discard(&directory)?;
        std::fs::create_dir_all(&directory)?;
        disk::make_termination_log(&log)
    });
    made.await.map_err(std::io::Error::other).flatten()
}

fn as_waiting_reason(error: StartError) -> ContainerStartError {
    match error {
        StartError::Config(message) => start_error("CreateContainerConfigError", message),
        StartError::Setup(message) => start_error("CreateContainerError", message),
        StartError::Program(message) => ContainerStartError {
            reason: "StartError",
            message,
            crashed: true,
        },
    }
}

/// Gives the program a terminal or a pipe to read from, where its container asks for one.
fn connect_stdin(
    container: &Container,
    start: &mut ContainerStart,
) -> std::io::Result<Option<pipe::Sender>> {
    start.terminal = container.tty == Some(true);
    if start.terminal {
        session::with_terminal_variable(&mut start.process);
        return Ok(None);
    }
    if container.stdin != Some(true) {
        return Ok(None);
    }
    let (read, write) = session::input_pipe()?;
    start.stdin = Some(Arc::new(read));
    Ok(Some(write))
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

fn plan(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &ReadyImage,
    sandbox: &PodSandbox,
    directories: &PodDirectories,
) -> Result<ContainerStart, String> {
    let hostname = sandbox.hostname.clone();
    let sources = Cached {
        context: shared.context(),
        namespace: namespace(pod),
    };
    let (api_host, api_port) = api_address(shared);
    let node = api_variables(&api_host.to_string(), api_port);
    let known: BTreeMap<String, String> = node.iter().cloned().collect();
    let own = environment::of(pod, container, &sandbox.downward, &known, &sources)?;
    let environment = program::environment(&hostname, &image.config, &node, own);
    let mut process = program::process(pod, container, &image.config, &environment)?;
    process.oom_score_adj =
        resources::oom_score_adj(status::qos_class(pod), container, shared.node_memory_bytes);
    Ok(ContainerStart {
        hostname,
        directory: directories.container(&container.name, attempt),
        layers: image.layers.clone(),
        mounts: mounts::of(
            container,
            directories,
            attempt,
            &sandbox.volumes,
            &image.config.volumes,
            &environment,
        )?,
        read_only_root: container
            .security_context
            .as_ref()
            .and_then(|context| context.read_only_root_filesystem)
            == Some(true),
        isolation: security::isolation(pod, container)?,
        process,
        limits: resources::limits(container),
        stdin: None,
        terminal: false,
    })
}

/// Where pods find the API server: at its Service's address, else at the gateway's.
fn api_address(shared: &Shared) -> (std::net::Ipv4Addr, u16) {
    let service = shared
        .context()
        .cache::<Service>()
        .get("default", "kubernetes");
    let by_service = service.and_then(|service| {
        let port = service.spec.as_ref()?.ports.as_ref()?.first()?.port;
        let address = crate::network::cluster_address(&service)?;
        Some((address, u16::try_from(port).ok()?))
    });
    by_service.unwrap_or_else(|| {
        let port = shared.options.network.api_port.unwrap_or(443);
        (shared.engine.gateway(), port)
    })
}

/// How programs find the API server: client libraries read these variables.
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
