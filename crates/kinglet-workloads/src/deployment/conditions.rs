//! The status of a Deployment: counts, and conditions with Kubernetes' reasons and words.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::Limits;

/// Everything the status is computed from.
pub(super) struct RolloutState<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) limits: Limits,
    /// The ReplicaSet of the present template and the size it now has in its spec.
    pub(super) new: Option<&'a ReplicaSet>,
    /// All ReplicaSets as they were seen.
    pub(super) all: &'a [Arc<ReplicaSet>],
    /// Sum of the sizes in all specs, after this decision.
    pub(super) replicas_wanted: i32,
    /// The ReplicaSet was made by this decision.
    pub(super) created: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// The status, and when to look again for a missed deadline.
pub(super) fn status(rollout: &RolloutState<'_>) -> (DeploymentStatus, Option<Duration>) {
    let deployment = rollout.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout, &before);
    available(rollout, &mut status);
    let spec = deployment.spec.as_ref();
    let paused = spec.and_then(|spec| spec.paused).unwrap_or(false);
    let deadline = spec
        .and_then(|spec| spec.progress_deadline_seconds)
        .filter(|seconds| *seconds != i32::MAX);
    match deadline {
        None => drop_condition(&mut status, "Progressing"),
        Some(_) if paused => {
            if condition(&status, "Progressing")
                .is_none_or(|known| known.reason.as_deref() != Some("ProgressDeadlineExceeded"))
            {
                set(
                    &mut status,
                    "Progressing",
                    "Unknown",
                    "DeploymentPaused",
                    "Deployment is paused",
                    rollout.now,
                );
            }
        }
        Some(seconds) => progressing(rollout, &before, &mut status, seconds),
    }
    replica_failure(rollout, &mut status);
    let again = deadline
        .filter(|_| !paused)
        .and_then(|seconds| deadline_left(&status, rollout, seconds));
    (status, again)
}

/// The status after the new ReplicaSet could not be created.
pub(super) fn creation_failed(
    deployment: &Deployment,
    name: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    let message = format!("Failed to create new replica set \"{name}\": {message}");
    set(
        &mut status,
        "Progressing",
        "False",
        "ReplicaSetCreateError",
        &message,
        now,
    );
    status
}

fn counts(rollout: &RolloutState<'_>, before: &DeploymentStatus) -> DeploymentStatus {
    let sum = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        rollout
            .all
            .iter()
            .filter_map(|set| set.status.as_ref())
            .map(of)
            .sum::<i32>()
    };
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(|status| status.replicas)),
        updated_replicas: some(
            rollout
                .new
                .and_then(|set| set.status.as_ref())
                .map_or(0, |status| status.replicas),
        ),
        ready_replicas: some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((rollout.replicas_wanted - available).max(0)),
        terminating_replicas: None,
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    }
}

fn available(rollout: &RolloutState<'_>, status: &mut DeploymentStatus) {
    let enough = status.available_replicas.unwrap_or(0)
        >= rollout.limits.replicas - rollout.limits.max_unavailable;
    if enough {
        let words = "Deployment has minimum availability.";
        set(
            status,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            words,
            rollout.now,
        );
    } else {
        let words = "Deployment does not have minimum availability.";
        set(
            status,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            words,
            rollout.now,
        );
    }
}

fn progressing(
    rollout: &RolloutState<'_>,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    seconds: i32,
) {
    let set_progressing = |status: &mut DeploymentStatus, value, reason, message: &str| {
        set(status, "Progressing", value, reason, message, rollout.now);
    };
    if let Some(created) = rollout.created {
        let words = format!("Created new replica set \"{created}\"");
        return set_progressing(status, "True", "NewReplicaSetCreated", &words);
    }
    let known = condition(status, "Progressing").cloned();
    let reason = known.as_ref().and_then(|known| known.reason.as_deref());
    if reason == Some("DeploymentPaused") {
        let words = "Deployment is resumed";
        return set_progressing(status, "Unknown", "DeploymentResumed", words);
    }
    let Some(name) = rollout.new.and_then(|set| set.metadata.name.as_deref()) else {
        return;
    };
    let Some(known) = known.as_ref() else {
        let words = format!("Found new replica set \"{name}\"");
        return set_progressing(status, "True", "FoundNewReplicaSet", &words);
    };
    let settled =
        status.replicas == status.updated_replicas && reason == Some("NewReplicaSetAvailable");
    if settled {
        return;
    }
    let subject = format!("ReplicaSet \"{name}\"");
    if complete(rollout, status) {
        let words = format!("{subject} has successfully progressed.");
        set_progressing(status, "True", "NewReplicaSetAvailable", &words);
    } else if advanced(before, status) {
        let words = format!("{subject} is progressing.");
        advance(known, status, &words, rollout.now);
    } else if timed_out(known, seconds, rollout.now) {
        let words = format!("{subject} has timed out progressing.");
        set_progressing(status, "False", "ProgressDeadlineExceeded", &words);
    }
}

/// Says anew that the rollout progresses; it has done so since it first did.
fn advance(
    known: &DeploymentCondition,
    status: &mut DeploymentStatus,
    words: &str,
    now: Timestamp,
) {
    let since = known
        .last_transition_time
        .clone()
        .filter(|_| known.status == "True");
    drop_condition(status, "Progressing");
    set(
        status,
        "Progressing",
        "True",
        "ReplicaSetUpdated",
        words,
        now,
    );
    if let (Some(since), Some(condition)) = (since, status.conditions.iter_mut().flatten().last()) {
        condition.last_transition_time = Some(since);
    }
}

fn replica_failure(rollout: &RolloutState<'_>, status: &mut DeploymentStatus) {
    let failure = |set: &ReplicaSet| {
        let all = set.status.as_ref()?.conditions.as_ref()?;
        all.iter()
            .find(|condition| condition.type_ == "ReplicaFailure")
            .cloned()
    };
    let found = rollout
        .new
        .and_then(failure)
        .or_else(|| rollout.all.iter().find_map(|set| failure(set)));
    match found {
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            set(
                status,
                "ReplicaFailure",
                &failure.status,
                &reason,
                &failure.message.unwrap_or_default(),
                rollout.now,
            );
        }
        None => drop_condition(status, "ReplicaFailure"),
    }
}

/// Whether the rollout is done.
pub(super) fn complete(rollout: &RolloutState<'_>, status: &DeploymentStatus) -> bool {
    let wanted = some(rollout.limits.replicas);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

fn advanced(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

fn timed_out(known: &DeploymentCondition, seconds: i32, now: Timestamp) -> bool {
    match known.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => {
            let since = known.last_update_time.as_ref().map_or(now, |time| time.0);
            now.duration_since(since) > SignedDuration::from_secs(seconds.into())
        }
    }
}

fn deadline_left(
    status: &DeploymentStatus,
    rollout: &RolloutState<'_>,
    seconds: i32,
) -> Option<Duration> {
    let known = condition(status, "Progressing")?;
    if matches!(
        known.reason.as_deref(),
        Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")
    ) {
        return None;
    }
    let since = known
        .last_update_time
        .as_ref()
        .map_or(rollout.now, |time| time.0);
    // One second more, since stamps carry whole seconds.
    let left =
        SignedDuration::from_secs(i64::from(seconds) + 1) - rollout.now.duration_since(since);
    Some(
        Duration::try_from(left)
            .unwrap_or(Duration::ZERO)
            .max(Duration::from_millis(100)),
    )
}

fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn drop_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|condition| condition.type_ != type_);
    }
}

/// Sets a condition; the same status and reason leave it as it is, the same status keeps its transition time.
fn set(
    status: &mut DeploymentStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let known = condition(status, type_);
    if known.is_some_and(|known| known.status == value && known.reason.as_deref() == Some(reason)) {
        return;
    }
    let stamp = crate::time::whole_seconds(now);
    let since = known
        .filter(|known| known.status == value)
        .and_then(|known| known.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(stamp)),
        last_transition_time: Some(since.unwrap_or(Time(stamp))),
    };
    drop_condition(status, type_);
    status.conditions.get_or_insert_default().push(condition);
}

/// Counts of zero are left out, as Kubernetes does.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
