//! Logs and running programs of one pod, for those outside of its worker.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{label, name_of, namespace_of};

use crate::logs::Log;
use crate::logs::proxy::ProxyLog;
use crate::pod::container_state::{ContainerState, Role};
use crate::pod::start::Shared;
use crate::session::attach::RunningProgram;
use crate::volumes::PodDirectories;

/// Logs and running programs of one pod, for those outside of the worker.
#[derive(Debug, Default)]
pub(crate) struct PodLogs {
    /// In the Pod's order.
    pub(crate) containers: Vec<(String, ContainerLogs)>,
}

/// Logs of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerLogs {
    /// Of a queue-proxy, which is never started.
    pub(crate) proxy: Option<Arc<ProxyLog>>,
    pub(crate) init: bool,
    pub(crate) current: Option<Arc<Log>>,
    pub(crate) previous: Option<Arc<Log>>,
    pub(crate) waiting: String,
    /// What clients can talk to, while it runs.
    pub(crate) running: Option<RunningProgram>,
}

/// The logs of a container that has not run yet.
pub(super) fn first_logs(
    shared: &Shared,
    pod: &Arc<Pod>,
    directories: &PodDirectories,
    state: &ContainerState,
) -> ContainerLogs {
    let proxy_log = || {
        let path = directories.disk.join("logs/queue-proxy/0.log");
        let revision = label(&**pod, "serving.knative.dev/revision").unwrap_or_default();
        let key = format!("{}/{revision}", namespace_of(&**pod));
        let now = shared.context().now();
        Arc::new(ProxyLog::new(path, &key, name_of(&**pod), now))
    };
    ContainerLogs {
        proxy: (state.role == Role::Proxy).then(proxy_log),
        init: matches!(state.role, Role::Init | Role::Sidecar),
        waiting: "ContainerCreating".to_owned(),
        ..Default::default()
    }
}
