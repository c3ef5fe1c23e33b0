//! What the API is told about a pod: pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as KubernetesContainerState, ContainerStateRunning,
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kinglet_quantity::Quantity;

use crate::pod::container_state::{self, ContainerState, Ending, Role, Stage};
use crate::pod::lifecycle::{PULL_ERROR_SHOWN, RestartPolicy, later, restart_at};

/// Kubernetes stores whole seconds.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Everything that a status is made of.
pub(crate) struct ObservedPod<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) states: &'a [ContainerState],
    /// Once there is a sandbox.
    pub(crate) pod_ip: Option<std::net::Ipv4Addr>,
    pub(crate) host_ip: std::net::Ipv4Addr,
    pub(crate) start_time: Timestamp,
    /// Nothing will run any more; whether all went well.
    pub(crate) finished: Option<bool>,
    /// It is being ended.
    pub(crate) ending: bool,
    /// Why the whole pod failed.
    pub(crate) failure: Option<(&'a str, &'a str)>,
    pub(crate) now: Timestamp,
}

/// The status.
pub(crate) fn of(observed: &ObservedPod<'_>) -> PodStatus {
    let before = observed.pod.status.as_ref();
    let phase = phase(observed);
    let inits: Vec<&ContainerState> = observed
        .states
        .iter()
        .filter(|state| matches!(state.role, Role::Init | Role::Sidecar))
        .collect();
    let mut apps: Vec<&ContainerState> = observed
        .states
        .iter()
        .filter(|state| matches!(state.role, Role::App | Role::Proxy))
        .collect();
    apps.sort_by(|left, right| left.name.cmp(&right.name));
    let initialized = is_initialized(&inits);
    let statuses = |states: &[&ContainerState], waiting_for_init: bool| {
        let all: Vec<ContainerStatus> = states
            .iter()
            .map(|state| container_status(observed, state, waiting_for_init))
            .collect();
        (!all.is_empty()).then_some(all)
    };
    let mut status = before.cloned().unwrap_or_default();
    status.phase = Some(phase.to_owned());
    status.conditions = Some(conditions(observed, phase, initialized));
    status.init_container_statuses = statuses(&inits, false);
    status.container_statuses = statuses(&apps, !initialized);
    status.host_ip = Some(observed.host_ip.to_string());
    status.host_ips = Some(vec![HostIP {
        ip: observed.host_ip.to_string(),
    }]);
    // An ended pod keeps the address it had.
    if let Some(ip) = observed.pod_ip {
        status.pod_ip = Some(ip.to_string());
        status.pod_ips = Some(vec![PodIP { ip: ip.to_string() }]);
    } else if observed.finished.is_none() && !observed.ending {
        (status.pod_ip, status.pod_ips) = (None, None);
    }
    status.start_time = Some(time(observed.start_time));
    status.qos_class = Some(
        before
            .and_then(|before| before.qos_class.clone())
            .unwrap_or_else(|| qos_class(observed.pod).to_owned()),
    );
    status.observed_generation = observed.pod.metadata.generation;
    (status.reason, status.message) = observed.failure.map_or((None, None), |(reason, message)| {
        (Some(reason.to_owned()), Some(message.to_owned()))
    });
    status
}

/// Whether this status differs from another in something that somebody waits for: readiness, an ending, trouble.
pub(crate) fn is_urgent(new: &PodStatus, old: Option<&PodStatus>) -> bool {
    let nothing = PodStatus::default();
    let old = old.unwrap_or(&nothing);
    let ready = |status: &PodStatus| {
        condition_of(status, "Ready").map(|condition| condition.status.clone())
    };
    let troubles = |status: &PodStatus| -> Vec<String> {
        let all = status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten());
        all.map(|one| {
            let state = one.state.as_ref();
            let waiting = state
                .and_then(|state| state.waiting.as_ref())
                .and_then(|waiting| waiting.reason.clone())
                .unwrap_or_default();
            let waiting = if matches!(waiting.as_str(), "ContainerCreating" | "PodInitializing") {
                String::new()
            } else {
                waiting
            };
            let ended = state.is_some_and(|state| state.terminated.is_some());
            format!("{waiting}/{ended}/{}", one.restart_count)
        })
        .collect()
    };
    let settled = |status: &PodStatus| {
        status
            .phase
            .as_deref()
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    let new_troubles = troubles(new);
    ready(new).as_deref() == Some("True") && ready(old).as_deref() != Some("True")
        || ready(new).as_deref() != Some("True") && ready(old).as_deref() == Some("True")
        || settled(new) != settled(old)
        || (new_troubles != troubles(old)
            && new_troubles.iter().any(|trouble| trouble != "/false/0"))
}

fn condition_of<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

fn is_initialized(inits: &[&ContainerState]) -> bool {
    inits.iter().all(|state| match state.role {
        Role::Sidecar => state.has_started() || matches!(state.stage, Stage::Ended(_)),
        _ => state.is_ready(),
    })
}

fn phase(observed: &ObservedPod<'_>) -> &'static str {
    if let Some(well) = observed.finished {
        return if well { "Succeeded" } else { "Failed" };
    }
    let apps = || {
        observed
            .states
            .iter()
            .filter(|state| matches!(state.role, Role::App | Role::Proxy))
    };
    let never_ran = |state: &ContainerState| {
        !matches!(state.stage, Stage::Running { .. } | Stage::Ended(_)) && state.last.is_none()
    };
    if apps().any(never_ran) {
        "Pending"
    } else {
        "Running"
    }
}

fn conditions(observed: &ObservedPod<'_>, phase: &str, initialized: bool) -> Vec<PodCondition> {
    let names = |states: Vec<&ContainerState>| {
        states
            .iter()
            .map(|state| state.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let done = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let unready: Vec<&ContainerState> = observed
        .states
        .iter()
        .filter(|state| state.role != Role::Init && !state.is_ready())
        .collect();
    let readiness = match done {
        Some(reason) => (false, Some(reason), None),
        None if unready.is_empty() => (true, None, None),
        None => {
            // More than a kubelet says: what the probe heard, so that nobody has to look for Events.
            let why = unready
                .iter()
                .filter(|state| state.is_running())
                .find_map(|state| state.complaint.clone());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            (
                false,
                Some("ContainersNotReady"),
                Some(format!(
                    "containers with unready status: [{}]{why}",
                    names(unready)
                )),
            )
        }
    };
    let incomplete: Vec<&ContainerState> = observed
        .states
        .iter()
        .filter(|state| {
            matches!(state.role, Role::Init | Role::Sidecar) && !is_initialized(&[state])
        })
        .collect();
    let initialization = match done {
        Some("PodCompleted") => (true, Some("PodCompleted"), None),
        _ if initialized => (true, None, None),
        _ => (
            false,
            Some("ContainersNotInitialized"),
            Some(format!(
                "containers with incomplete status: [{}]",
                names(incomplete)
            )),
        ),
    };
    let before = observed.pod.status.as_ref();
    let generation = observed.pod.metadata.generation;
    let make = |kind: &str, (good, reason, message): (bool, Option<&str>, Option<String>)| {
        let status = if good { "True" } else { "False" };
        let old = before.and_then(|before| condition_of(before, kind));
        let since = old
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: Some(since.unwrap_or_else(|| time(observed.now))),
            observed_generation: generation,
            last_probe_time: old.and_then(|old| old.last_probe_time.clone()),
        }
    };
    let ready_gates = observed
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let missing: Vec<&str> = ready_gates
        .map(|gate| gate.condition_type.as_str())
        .filter(|kind| {
            before
                .and_then(|before| condition_of(before, kind))
                .is_none_or(|condition| condition.status != "True")
        })
        .collect();
    let ready = if readiness.0 && !missing.is_empty() {
        (
            false,
            Some("ReadinessGatesNotReady"),
            Some(format!(
                "the status of pod readiness gate {:?} is not \"True\"",
                missing[0]
            )),
        )
    } else {
        readiness.clone()
    };
    let mut all = vec![
        make(
            "PodReadyToStartContainers",
            (observed.pod_ip.is_some() && done.is_none(), None, None),
        ),
        make("Initialized", initialization),
        make("Ready", ready),
        make("ContainersReady", readiness),
        make("PodScheduled", (true, None, None)),
    ];
    // Conditions of others stay.
    let own: Vec<String> = all
        .iter()
        .map(|condition| condition.type_.clone())
        .collect();
    all.extend(
        before
            .iter()
            .flat_map(|before| before.conditions.iter().flatten())
            .filter(|condition| !own.contains(&condition.type_))
            .cloned(),
    );
    all
}

fn container_status(
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
        Stage::Ended(ending) if shows_back_off(observed, state, ending) => Some(ending),
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
        last_state: Some(
            last.map_or_else(KubernetesContainerState::default, |ending| {
                KubernetesContainerState {
                    terminated: Some(terminated(ending)),
                    ..Default::default()
                }
            }),
        ),
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

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
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

/// Between two lives of a crashing container the state is "waiting" and the ending has moved to the last state.
fn shows_back_off(observed: &ObservedPod<'_>, state: &ContainerState, ending: &Ending) -> bool {
    let policy = RestartPolicy::parse(
        observed
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref()),
    );
    let comes_back = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => ending.code != 0,
        RestartPolicy::Never => false,
    };
    comes_back
        && state.crashes > 1
        && observed.finished.is_none()
        && !observed.ending
        && restart_at(state, ending) > observed.now
}

fn kubernetes_state(
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
        Stage::Ended(ending) if shows_back_off(observed, state, ending) => {
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
        Stage::Ended(ending) => KubernetesContainerState {
            terminated: Some(terminated(ending)),
            ..KubernetesContainerState::default()
        },
    }
}

/// Go's way to write a duration of whole seconds.
fn words(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// `name_namespace(uid)`, as kubelets name pods.
pub(crate) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    )
}

fn terminated(ending: &Ending) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ending.code,
        signal: None,
        reason: Some(ending.reason.to_owned()),
        message: Some(ending.message.clone()).filter(|message| !message.is_empty()),
        started_at: Some(time(ending.started_at.unwrap_or(ending.finished_at))),
        finished_at: Some(time(ending.finished_at)),
        container_id: Some(ending.container_id.clone()).filter(|id| !id.is_empty()),
    }
}

/// Guaranteed, Burstable or BestEffort.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let containers: Vec<&Container> = pod
        .spec
        .iter()
        .flat_map(|spec| {
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
        })
        .collect();
    type Amounts = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;
    let amount = |amounts: Option<&Amounts>, name: &str| {
        let found = amounts
            .and_then(|amounts| amounts.get(name))
            .and_then(|text| Quantity::parse(&text.0).ok());
        found.map(Quantity::millis).filter(|millis| *millis > 0)
    };
    let (mut any, mut all) = (false, true);
    for container in &containers {
        for name in ["cpu", "memory"] {
            let limit = amount(
                container
                    .resources
                    .as_ref()
                    .and_then(|all| all.limits.as_ref()),
                name,
            );
            let request = amount(
                container
                    .resources
                    .as_ref()
                    .and_then(|all| all.requests.as_ref()),
                name,
            )
            .or(limit);
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all && !containers.is_empty()) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::net::Ipv4Addr;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1},
            "spec": {"containers": [
                {"name": "user-container", "image": "app:1", "resources": {}, "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]},
                {"name": "queue-proxy", "image": "queue:1", "resources": {"requests": {"cpu": "25m"}}},
            ]},
        }))
        .expect("pod")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("time")
    }

    fn observed<'a>(pod: &'a Pod, states: &'a [ContainerState]) -> ObservedPod<'a> {
        ObservedPod {
            pod,
            states,
            pod_ip: Some(Ipv4Addr::new(10, 0, 0, 7)),
            host_ip: Ipv4Addr::new(10, 0, 0, 1),
            start_time: at(90),
            finished: None,
            ending: false,
            failure: None,
            now: at(100),
        }
    }

    fn states(pod: &Pod) -> Vec<ContainerState> {
        container_state::of(pod, &["queue".to_owned()])
    }

    fn ready(status: &PodStatus) -> (String, Option<String>) {
        let condition = condition_of(status, "Ready").expect("condition");
        (condition.status.clone(), condition.message.clone())
    }

    #[test]
    fn from_created_to_ready() {
        let pod = pod();
        let mut states = states(&pod);
        let status = of(&observed(&pod, &states));
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(
            ready(&status).1.as_deref(),
            Some("containers with unready status: [user-container queue-proxy]")
        );
        states[0].stage = Stage::Running { since: at(99) };
        states[1].stage = Stage::Running { since: at(99) };
        let waiting = of(&observed(&pod, &states));
        assert_eq!(waiting.phase.as_deref(), Some("Running"));
        assert_eq!(
            ready(&waiting),
            (
                "False".to_owned(),
                Some("containers with unready status: [queue-proxy]".to_owned())
            )
        );
        states[1].complaint = Some("Readiness probe failed: refused".to_owned());
        let complaining = of(&observed(&pod, &states));
        assert_eq!(
            ready(&complaining).1.as_deref(),
            Some("containers with unready status: [queue-proxy]: Readiness probe failed: refused")
        );
        states[1].passed = Some(true);
        let status = of(&observed(&pod, &states));
        assert_eq!(ready(&status).0, "True");
        assert!(is_urgent(&status, Some(&waiting)) && !is_urgent(&status, Some(&status)));
        let kinds: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|condition| condition.type_.as_str())
            .collect();
        assert_eq!(
            kinds,
            [
                "PodReadyToStartContainers",
                "Initialized",
                "Ready",
                "ContainersReady",
                "PodScheduled"
            ]
        );
        let containers = status.container_statuses.as_ref().expect("containers");
        assert_eq!(containers[0].name, "queue-proxy", "by name");
        assert!(
            containers
                .iter()
                .all(|one| one.ready && one.started == Some(true))
        );
        assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
    }

    #[test]
    fn a_crash_loop_and_a_missing_image_say_why() {
        let pod = pod();
        let mut states = states(&pod);
        let ending = Ending {
            code: 3,
            signal: None,
            reason: "Error",
            message: "last words".to_owned(),
            started_at: Some(at(98)),
            finished_at: at(99),
            container_id: "kinglet://1".to_owned(),
        };
        states[0].stage = Stage::Ended(ending);
        states[0].crashes = 2;
        let status = of(&observed(&pod, &states));
        let user = &status.container_statuses.as_ref().expect("containers")[1];
        let waiting = user
            .state
            .as_ref()
            .and_then(|state| state.waiting.clone())
            .expect("waiting");
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(
            waiting.message.as_deref(),
            Some("back-off 10s restarting failed container=user-container pod=p_ns(u)")
        );
        let last = user
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.clone())
            .expect("last");
        assert_eq!(
            (last.exit_code, last.message.as_deref()),
            (3, Some("last words"))
        );
        states[0] = ContainerState {
            stage: Stage::StartFailed {
                reason: "ErrImagePull",
                message: "no host".to_owned(),
                since: at(99),
                until: at(110),
            },
            last: None,
            ..states[0].clone()
        };
        let status = of(&observed(&pod, &states));
        let user = &status.container_statuses.as_ref().expect("containers")[1];
        let waiting = user
            .state
            .as_ref()
            .and_then(|state| state.waiting.clone())
            .expect("waiting");
        assert_eq!(
            waiting.message.as_deref(),
            Some("Back-off pulling image \"app:1\": ErrImagePull: no host")
        );
        assert_eq!(status.phase.as_deref(), Some("Pending"));
    }

    #[test]
    fn an_ended_pod() {
        let pod = pod();
        let states = states(&pod);
        let status = of(&ObservedPod {
            finished: Some(true),
            ending: true,
            ..observed(&pod, &states)
        });
        assert_eq!(status.phase.as_deref(), Some("Succeeded"));
        let reason =
            |kind: &str| condition_of(&status, kind).and_then(|condition| condition.reason.clone());
        assert_eq!(reason("Ready").as_deref(), Some("PodCompleted"));
        assert_eq!(reason("PodReadyToStartContainers"), None);
    }

    #[test]
    fn service_classes() {
        let of = |resources: serde_json::Value| {
            let pod: Pod = serde_json::from_value(
                json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}),
            )
            .expect("pod");
            qos_class(&pod)
        };
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
            "Burstable"
        );
    }
}
