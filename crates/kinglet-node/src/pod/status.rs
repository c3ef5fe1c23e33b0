//! The status of a pod as the API is told it: pure.

mod conditions;
mod containers;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kinglet_quantity::Quantity;

use crate::pod::container_state::{ContainerState, Role, Stage};
use conditions::{condition_of, conditions, is_initialized};
use containers::container_status;

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
    pub(crate) terminating: bool,
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
    } else if observed.finished.is_none() && !observed.terminating {
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

/// Whether this status differs from another in something that somebody waits for: readiness, a termination, trouble.
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
        !matches!(state.stage, Stage::Running { .. } | Stage::Terminated(_)) && state.last.is_none()
    };
    if apps().any(never_ran) {
        "Pending"
    } else {
        "Running"
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
    use crate::pod::container_state::{self, Terminated};
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
            terminating: false,
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
        states[1].probe_failure = Some("Readiness probe failed: refused".to_owned());
        let complaining = of(&observed(&pod, &states));
        assert_eq!(
            ready(&complaining).1.as_deref(),
            Some("containers with unready status: [queue-proxy]: Readiness probe failed: refused")
        );
        states[1].probe_ready = Some(true);
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
        let terminated = Terminated {
            code: 3,
            signal: None,
            reason: "Error",
            message: "last words".to_owned(),
            started_at: Some(at(98)),
            finished_at: at(99),
            container_id: "kinglet://1".to_owned(),
        };
        states[0].stage = Stage::Terminated(terminated);
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
            terminating: true,
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
