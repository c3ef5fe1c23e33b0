//! The conditions of a pod.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

use super::{ObservedPod, time};
use crate::pod::container_state::{ContainerState, Role, Stage};

pub(super) fn condition_of<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

pub(super) fn is_initialized(inits: &[&ContainerState]) -> bool {
    inits.iter().all(|state| match state.role {
        Role::Sidecar => state.has_started() || matches!(state.stage, Stage::Terminated(_)),
        _ => state.is_ready(),
    })
}

/// What a condition says: whether it holds, and reason and message.
type Finding = (bool, Option<&'static str>, Option<String>);

pub(super) fn conditions(
    observed: &ObservedPod<'_>,
    phase: &str,
    initialized: bool,
) -> Vec<PodCondition> {
    let done = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let readiness = readiness(observed, done);
    let ready = gated(observed, readiness.clone());
    let has_sandbox = observed.pod_ip.is_some() && done.is_none();
    let own = [
        ("PodReadyToStartContainers", (has_sandbox, None, None)),
        ("Initialized", initialization(observed, done, initialized)),
        ("Ready", ready),
        ("ContainersReady", readiness),
        ("PodScheduled", (true, None, None)),
    ];
    let before = observed.pod.status.as_ref();
    // Conditions of others stay.
    let others = before
        .iter()
        .flat_map(|before| before.conditions.iter().flatten())
        .filter(|condition| own.iter().all(|(kind, _)| condition.type_ != *kind))
        .cloned()
        .collect::<Vec<_>>();
    own.into_iter()
        .map(|(kind, finding)| condition(observed, kind, finding))
        .chain(others)
        .collect()
}

/// A condition whose transition time moves only with its status.
fn condition(
    observed: &ObservedPod<'_>,
    kind: &str,
    (good, reason, message): Finding,
) -> PodCondition {
    let status = if good { "True" } else { "False" };
    let before = observed.pod.status.as_ref();
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
        observed_generation: observed.pod.metadata.generation,
        last_probe_time: old.and_then(|old| old.last_probe_time.clone()),
    }
}

fn names(states: &[&ContainerState]) -> String {
    let names: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
    names.join(" ")
}

/// Whether all containers are ready. Says more than a kubelet: what the probe heard, so that nobody has to look for Events.
fn readiness(observed: &ObservedPod<'_>, done: Option<&'static str>) -> Finding {
    if done.is_some() {
        return (false, done, None);
    }
    let unready: Vec<&ContainerState> = observed
        .states
        .iter()
        .filter(|state| state.role != Role::Init && !state.is_ready())
        .collect();
    if unready.is_empty() {
        return (true, None, None);
    }
    let why = unready
        .iter()
        .filter(|state| state.is_running())
        .find_map(|state| state.probe_failure.clone());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let message = format!("containers with unready status: [{}]{why}", names(&unready));
    (false, Some("ContainersNotReady"), Some(message))
}

/// Readiness of the whole pod: its containers, then the conditions that others set (`readinessGates`).
fn gated(observed: &ObservedPod<'_>, readiness: Finding) -> Finding {
    let before = observed.pod.status.as_ref();
    let is_missing = |kind: &&str| {
        before
            .and_then(|before| condition_of(before, kind))
            .is_none_or(|condition| condition.status != "True")
    };
    let spec = observed.pod.spec.as_ref();
    let mut gates = spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.as_str());
    match gates.find(is_missing) {
        Some(missing) if readiness.0 => {
            let message = format!("the status of pod readiness gate {missing:?} is not \"True\"");
            (false, Some("ReadinessGatesNotReady"), Some(message))
        }
        _ => readiness,
    }
}

fn initialization(
    observed: &ObservedPod<'_>,
    done: Option<&'static str>,
    initialized: bool,
) -> Finding {
    match done {
        Some("PodCompleted") => (true, done, None),
        _ if initialized => (true, None, None),
        _ => {
            let is_incomplete = |state: &&ContainerState| {
                matches!(state.role, Role::Init | Role::Sidecar) && !is_initialized(&[state])
            };
            let incomplete: Vec<&ContainerState> =
                observed.states.iter().filter(is_incomplete).collect();
            let message = format!(
                "containers with incomplete status: [{}]",
                names(&incomplete)
            );
            (false, Some("ContainersNotInitialized"), Some(message))
        }
    }
}
