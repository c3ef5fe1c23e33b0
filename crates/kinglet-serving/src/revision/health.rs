//! What a Deployment and its pods say about a Revision.
//!
//! Knative looks at pods only once the progress deadline has passed; here every pod event is looked at, so that a
//! missing image, a crash or a probe that fails is told within the second in which the node knows it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kinglet_api::conditions::ConditionState;
use kinglet_reconcile::is_deleting;
use kinglet_reconcile::pod::condition as condition_of;

const DEPLOYING: &str = "Deploying";
const QUEUE: &str = "queue-proxy";
/// A container that runs so long without being ready is worth a word; slower starters are still not called failed.
const SLOW_AFTER_SECONDS: i64 = 5;
/// How often a slow one is asked again.
const SLOW_AGAIN_SECONDS: i64 = 10;
/// Waiting for one of these is the ordinary course of things.
const ON_ITS_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What was found out about a Revision's two conditions; `None` leaves what was known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) resources: Option<ConditionState>,
    pub(super) container: Option<ConditionState>,
    /// Seconds after which to look again, when time alone changes the answer.
    pub(super) again_seconds: Option<i64>,
}

/// What the Deployment's own conditions say.
pub(super) fn of_deployment(deployment: &Deployment) -> ConditionState {
    let status = deployment.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let find = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == kind)
    };
    let words = |text: Option<&String>| text.cloned().unwrap_or_default();
    // That pods cannot be made (a quota) is a deeper cause than that time ran out.
    if let Some(failure) = find("ReplicaFailure").filter(|failure| failure.status == "True") {
        return ConditionState::false_because(
            words(failure.reason.as_ref()),
            words(failure.message.as_ref()),
        );
    }
    match find("Progressing") {
        None => ConditionState::unknown_because(DEPLOYING, ""),
        Some(progress) if progress.status == "True" => ConditionState::True,
        Some(progress) if progress.status == "False" => ConditionState::false_because(
            words(progress.reason.as_ref()),
            words(progress.message.as_ref()),
        ),
        Some(progress) => ConditionState::unknown_because(
            words(progress.reason.as_ref()),
            words(progress.message.as_ref()),
        ),
    }
}

/// What the pods say while none of them is ready.
pub(super) fn of_pods<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    always_schedulable: bool,
) -> Findings {
    let mut findings = Findings::default();
    let mut held = None;
    for pod in pods.into_iter().filter(|pod| !is_deleting(*pod)) {
        if let Some(state) = unscheduled(pod).filter(|_| !always_schedulable) {
            findings.resources.get_or_insert(state);
        }
        for container in containers(pod) {
            match verdict(container) {
                // That queue-proxy ended is the platform's business; that it cannot start keeps the Revision from working.
                Some(Verdict::Ended(state)) if container.name != QUEUE => {
                    findings.container.get_or_insert(state);
                }
                Some(Verdict::Ended(_)) | None => {}
                Some(Verdict::Stuck(state)) => {
                    findings.resources.get_or_insert(state);
                }
                Some(Verdict::Held(state)) => {
                    held.get_or_insert(state);
                }
            }
        }
    }
    findings.resources = findings.resources.or(held);
    findings
}

/// A pod that runs, is not ready, and for how many seconds it has been so.
pub(super) fn slowest<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    now: Timestamp,
) -> Option<(&'a Pod, i64)> {
    let alive = pods.into_iter().filter(|pod| !is_deleting(*pod));
    alive
        .filter_map(|pod| Some((pod, running_for(pod, now)?)))
        .max_by_key(|(_, seconds)| *seconds)
}

/// What is said about pods that run but do not get ready: told, but not called a failure before the deadline.
/// `probe` is what the last failed probe said, if that is known.
pub(super) fn of_slow_pods<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    probe: Option<&str>,
    now: Timestamp,
) -> Findings {
    let mut findings = Findings::default();
    let Some((pod, running_for)) = slowest(pods, now) else {
        return findings;
    };
    if running_for < SLOW_AFTER_SECONDS {
        findings.again_seconds = Some(SLOW_AFTER_SECONDS - running_for);
        return findings;
    }
    let condition = condition_of(pod, "ContainersReady").or_else(|| condition_of(pod, "Ready"));
    let conditions = probe
        .or_else(|| condition?.message.as_deref())
        .filter(|conditions| !conditions.is_empty());
    let message = match conditions {
        Some(conditions) => format!("Container runs but is not ready: {conditions}"),
        None => {
            "Container runs but is not ready, its readiness probe has not succeeded yet".to_owned()
        }
    };
    findings.container = Some(ConditionState::unknown_because(
        "ContainersNotReady",
        message,
    ));
    findings.again_seconds = Some(SLOW_AGAIN_SECONDS);
    findings
}

/// The running pod whose last failed probe is worth asking for.
pub(super) fn is_slow(running_for_seconds: i64) -> bool {
    running_for_seconds >= SLOW_AFTER_SECONDS
}

/// How long all user containers have been running, if they are.
fn running_for(pod: &Pod, now: Timestamp) -> Option<i64> {
    let mut shortest = None;
    for container in user_containers(pod) {
        let running = container.state.as_ref()?.running.as_ref()?;
        let since = running.started_at.as_ref()?.0;
        let seconds = now.as_second().saturating_sub(since.as_second());
        shortest = Some(shortest.map_or(seconds, |other: i64| other.min(seconds)));
    }
    shortest
}

fn unscheduled(pod: &Pod) -> Option<ConditionState> {
    let condition =
        condition_of(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let words = |text: Option<&String>| text.cloned().unwrap_or_default();
    Some(ConditionState::false_because(
        words(condition.reason.as_ref()),
        words(condition.message.as_ref()),
    ))
}

/// Init containers first, as they run first.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|status| status.init_container_statuses.as_ref())
        .into_iter()
        .flatten();
    // An init container that ended well is done.
    let init = init.filter(|container| !matches!(&container.state, Some(ContainerState { terminated: Some(ended), .. }) if ended.exit_code == 0));
    init.chain(
        status
            .and_then(|status| status.container_statuses.as_ref())
            .into_iter()
            .flatten(),
    )
}

fn user_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten();
    all.filter(|container| container.name != QUEUE)
}

enum Verdict {
    /// It ran and ended.
    Ended(ConditionState),
    /// It could not be started.
    Stuck(ConditionState),
    /// It is on its way and waits for something that may still come, such as a Secret.
    Held(ConditionState),
}

fn verdict(container: &ContainerStatus) -> Option<Verdict> {
    let ended = |state: Option<&ContainerState>| state.and_then(|state| state.terminated.clone());
    if let Some(ended) =
        ended(container.state.as_ref()).or_else(|| ended(container.last_state.as_ref()))
    {
        let conditions = ended.message.filter(|message| !message.is_empty());
        let conditions = match (conditions, ended.exit_code) {
            (Some(conditions), _) => conditions,
            (None, 0) => "container exited with no error".to_owned(),
            (None, code) => match ended.reason.as_deref() {
                Some(reason) if !reason.is_empty() && reason != "Error" => {
                    format!("{reason} (exit code {code})")
                }
                _ => format!("exit code {code}, without a word"),
            },
        };
        let reason = format!("ExitCode{}", ended.exit_code);
        return Some(Verdict::Ended(ConditionState::false_because(
            reason,
            format!("Container failed with: {conditions}"),
        )));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().filter(|reason| !reason.is_empty())?;
    let message = waiting.message.clone().unwrap_or_default();
    if !ON_ITS_WAY.contains(&reason.as_str()) {
        return Some(Verdict::Stuck(ConditionState::false_because(
            reason, message,
        )));
    }
    (!message.is_empty()).then(|| Verdict::Held(ConditionState::unknown_because(reason, message)))
}
