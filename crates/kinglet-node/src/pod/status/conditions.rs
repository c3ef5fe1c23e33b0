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

pub(super) fn conditions(
    observed: &ObservedPod<'_>,
    phase: &str,
    initialized: bool,
) -> Vec<PodCondition> {
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
                .find_map(|state| state.probe_failure.clone());
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
