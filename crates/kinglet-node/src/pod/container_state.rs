//! What is known about each container of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

/// Name of Knative's sidecar.
pub(crate) const QUEUE_PROXY: &str = "queue-proxy";

/// How a container takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next begins.
    Init,
    /// An init container that stays (restartPolicy Always).
    Sidecar,
    /// One of the pod's containers.
    App,
    /// Knative's queue-proxy: answered by this node, never started.
    Proxy,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not its turn yet.
    Created,
    /// Being started.
    Starting,
    /// Could not be started; tried again at `until`.
    StartFailed {
        reason: &'static str,
        message: String,
        since: Timestamp,
        until: Timestamp,
    },
    /// Runs.
    Running { since: Timestamp },
    /// Has ended; whether and when it begins again is decided by the lifecycle.
    Terminated(Terminated),
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terminated {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) container_id: String,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
    pub(crate) stage: Stage,
    pub(crate) restarts: u32,
    /// Lives so far; logs and files of each are apart.
    pub(crate) attempt: u32,
    /// Crashes in a row, for the back-off.
    pub(crate) crashes: u32,
    /// Failures in a row to begin, for the back-off.
    pub(crate) failures: u32,
    pub(crate) last: Option<Terminated>,
    /// Startup probe: `None` without one.
    pub(crate) started: Option<bool>,
    /// Readiness probe: `None` without one.
    pub(crate) probe_ready: Option<bool>,
    /// What its probes complain about, while they do.
    pub(crate) probe_failure: Option<String>,
}

impl ContainerState {
    pub(crate) fn new(container: &Container, role: Role) -> Self {
        Self {
            name: container.name.clone(),
            role,
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            container_id: String::new(),
            stage: Stage::Created,
            restarts: 0,
            attempt: 0,
            crashes: 0,
            failures: 0,
            last: None,
            started: container.startup_probe.as_ref().map(|_| false),
            probe_ready: container.readiness_probe.as_ref().map(|_| false),
            probe_failure: None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }

    /// Runs, and its startup probe (if any) has succeeded.
    pub(crate) fn has_started(&self) -> bool {
        self.is_running() && self.started != Some(false)
    }

    /// Runs and may take requests.
    pub(crate) fn is_ready(&self) -> bool {
        match self.role {
            Role::Init => {
                matches!(&self.stage, Stage::Terminated(terminated) if terminated.code == 0)
            }
            Role::Sidecar | Role::App | Role::Proxy => {
                self.has_started() && self.probe_ready != Some(false)
            }
        }
    }
}

/// The containers of a pod: init containers first, each list in the Pod's order.
pub(crate) fn of(pod: &Pod, queue_images: &[String]) -> Vec<ContainerState> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let inits = spec.init_containers.iter().flatten().map(|container| {
        let stays = container.restart_policy.as_deref() == Some("Always");
        ContainerState::new(container, if stays { Role::Sidecar } else { Role::Init })
    });
    let apps = spec.containers.iter().map(|container| {
        if !is_queue_proxy(container, queue_images) {
            return ContainerState::new(container, Role::App);
        }
        ContainerState {
            probe_ready: Some(false),
            ..ContainerState::new(container, Role::Proxy)
        }
    });
    inits.chain(apps).collect()
}

/// A container of that name whose image is the queue image: a user's own sidecar of the same name is an ordinary one.
pub(crate) fn is_queue_proxy(container: &Container, queue_images: &[String]) -> bool {
    let image = container.image.as_deref().unwrap_or("");
    container.name == QUEUE_PROXY
        && queue_images
            .iter()
            .any(|prefix| image.starts_with(prefix.as_str()))
}

/// The container of a container.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}
