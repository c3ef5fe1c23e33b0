//! The status of one container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as KubernetesContainerState, ContainerStateRunning,
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ResourceRequirements,
    VolumeMountStatus,
};

use super::{ObservedPod, full_name, time};
use crate::pod::container_state::{self, ContainerState, Role, Stage, Terminated};
use crate::pod::lifecycle::{PULL_ERROR_SHOWN, RestartPolicy, later, restart_at};

pub(super) fn container_status(
    observed: &ObservedPod<'_>,
    state: &ContainerState,
    waiting_for_init: bool,
) -> ContainerStatus {
    let container = container_state::container(observed.pod, &state.name);
    let resources = container
        .and_then(|container| container.resources.clone())
        .unwrap_or_default();
    let is_running = state.is_running();
    let last = match &state.stage {
        Stage::Terminated(terminated) if shows_back_off(observed, state, terminated) => {
            Some(terminated)
        }
        _ => state.last.as_ref(),
    };
    ContainerStatus {
        name: state.name.clone(),
        image: state.image.clone(),
        image_id: state.image_id.clone(),
        container_id: Some(state.container_id.clone()).filter(|id| !id.is_empty()),
        ready: state.is_ready() && observed.finished.is_none(),
        restart_count: i32::try_from(state.restarts).unwrap_or(i32::MAX),
        started: Some(state.has_started()),
        state: Some(kubernetes_state(observed, state, waiting_for_init)),
        last_state: Some(last.map_or_else(KubernetesContainerState::default, |last| {
            KubernetesContainerState {
                terminated: Some(terminated(last)),
                ..Default::default()
            }
        })),
        allocated_resources: if is_running {
            resources
                .requests
                .clone()
                .filter(|requests| !requests.is_empty())
        } else {
            None
        },
        resources: is_running.then_some(ResourceRequirements {
            claims: None,
            ..resources
        }),
        volume_mounts: container
            .and_then(mounts)
            .filter(|mounts| !mounts.is_empty()),
        ..ContainerStatus::default()
    }
}

pub(super) fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let all = container.volume_mounts.as_ref()?;
    let of = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only == Some(true);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".to_owned()),
        }
    };
    Some(all.iter().map(of).collect())
}

/// Between two lives of a crashing container the state is "waiting" and the termination has moved to the last state.
pub(super) fn shows_back_off(
    observed: &ObservedPod<'_>,
    state: &ContainerState,
    terminated: &Terminated,
) -> bool {
    let policy = RestartPolicy::parse(
        observed
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref()),
    );
    let comes_back = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => terminated.code != 0,
        RestartPolicy::Never => false,
    };
    comes_back
        && state.crashes > 1
        && observed.finished.is_none()
        && !observed.terminating
        && restart_at(state, terminated) > observed.now
}

pub(super) fn kubernetes_state(
    observed: &ObservedPod<'_>,
    state: &ContainerState,
    waiting_for_init: bool,
) -> KubernetesContainerState {
    let waiting = |reason: &str, message: Option<String>| KubernetesContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..KubernetesContainerState::default()
    };
    match &state.stage {
        Stage::Created | Stage::Starting
            if waiting_for_init || (state.role == Role::Init && state.stage == Stage::Created) =>
        {
            waiting("PodInitializing", None)
        }
        Stage::Created | Stage::Starting => waiting("ContainerCreating", None),
        Stage::StartFailed {
            reason: "ErrImagePull",
            message,
            since,
            ..
        } if later(*since, PULL_ERROR_SHOWN) <= observed.now => waiting(
            "ImagePullBackOff",
            Some(format!(
                "Back-off pulling image {:?}: ErrImagePull: {message}",
                state.image
            )),
        ),
        Stage::StartFailed {
            reason, message, ..
        } => waiting(reason, Some(message.clone())),
        Stage::Running { since } => KubernetesContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(*since)),
            }),
            ..KubernetesContainerState::default()
        },
        Stage::Terminated(terminated) if shows_back_off(observed, state, terminated) => {
            let delay = crate::pod::backoff::after_crash(state.crashes).as_secs();
            waiting(
                "CrashLoopBackOff",
                Some(format!(
                    "back-off {} restarting failed container={} pod={}",
                    words(delay),
                    state.name,
                    full_name(observed.pod)
                )),
            )
        }
        Stage::Terminated(last) => KubernetesContainerState {
            terminated: Some(terminated(last)),
            ..KubernetesContainerState::default()
        },
    }
}

/// Go's way to write a duration of whole seconds.
pub(super) fn words(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

pub(super) fn terminated(terminated: &Terminated) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: terminated.code,
        signal: None,
        reason: Some(terminated.reason.to_owned()),
        message: Some(terminated.message.clone()).filter(|message| !message.is_empty()),
        started_at: Some(time(
            terminated.started_at.unwrap_or(terminated.finished_at),
        )),
        finished_at: Some(time(terminated.finished_at)),
        container_id: Some(terminated.container_id.clone()).filter(|id| !id.is_empty()),
    }
}
