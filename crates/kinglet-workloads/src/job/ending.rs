//! Why a Job ends, and the conditions that say so: pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// How a Job ends, with the reason and the sentence of its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Succeeds { reason: String, message: String },
    Fails { reason: String, message: String },
}

impl Ending {
    fn fails(reason: &str, message: &str) -> Self {
        Self::Fails {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    /// Every completion is there.
    pub(super) fn complete() -> Self {
        Self::Succeeds {
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        }
    }

    /// The condition that announces the end while Pods still run, and the one that is the end.
    pub(super) fn conditions(&self) -> (&'static str, &'static str, &str, &str) {
        match self {
            Self::Succeeds { reason, message } => {
                ("SuccessCriteriaMet", "Complete", reason, message)
            }
            Self::Fails { reason, message } => ("FailureTarget", "Failed", reason, message),
        }
    }

    /// The end that a former look has announced.
    pub(super) fn announced(conditions: &[JobCondition]) -> Option<Self> {
        let of = |kind: &str| {
            let found = conditions.iter().find(|each| each.type_ == kind)?;
            (found.status == "True").then(|| {
                (
                    found.reason.clone().unwrap_or_default(),
                    found.message.clone().unwrap_or_default(),
                )
            })
        };
        of("FailureTarget")
            .map(|(reason, message)| Self::Fails { reason, message })
            .or_else(|| {
                of("SuccessCriteriaMet").map(|(reason, message)| Self::Succeeds { reason, message })
            })
    }
}

/// Whether a Job has come to its end, and when.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let end = status.conditions.iter().flatten().find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })?;
    let at = end.last_transition_time.as_ref().map(|time| time.0);
    Some(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Whether too many Pods have failed.
pub(super) fn exhausted(spec: &JobSpec, failed: i32, active: &[&Pod]) -> Option<Ending> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts = || {
        let statuses = active.iter().filter_map(|pod| pod.status.as_ref());
        statuses
            .flat_map(|status| {
                let own = status.container_statuses.iter().flatten();
                own.chain(status.init_container_statuses.iter().flatten())
            })
            .map(|container| container.restart_count)
            .sum::<i32>()
    };
    let on_failure = spec
        .template
        .spec
        .as_ref()
        .is_some_and(|pod| pod.restart_policy.as_deref() == Some("OnFailure"));
    let past = failed > limit
        || on_failure && {
            let restarts = restarts();
            restarts > 0 && restarts >= limit
        };
    past.then(|| {
        Ending::fails(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        )
    })
}

/// Whether the deadline is past; else how long it still is.
pub(super) fn deadline(
    spec: &JobSpec,
    start: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Duration>, Ending> {
    let (Some(seconds), Some(start)) = (spec.active_deadline_seconds, start) else {
        return Ok(None);
    };
    let left = SignedDuration::from_secs(seconds).saturating_sub(now.duration_since(start));
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Ok(Some(left)),
        _ => Err(Ending::fails(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )),
    }
}

/// Sets a condition. Returns whether that changed anything.
pub(super) fn set(
    conditions: &mut Vec<JobCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let time = Some(Time(crate::time::whole_seconds(now)));
    let fresh = JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: time.clone(),
        last_transition_time: time,
    };
    match conditions.iter_mut().find(|each| each.type_ == kind) {
        Some(known) if known.status == status => false,
        Some(known) => {
            *known = fresh;
            true
        }
        // Nothing is said of what never was.
        None if status == "False" => false,
        None => {
            conditions.push(fresh);
            true
        }
    }
}

/// The time before the first new Pod after a failure.
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest time before a new Pod.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

/// How long no new Pod is made, after Pods that failed since the last one that succeeded.
pub(super) fn backoff(ended: &[&Pod], now: Timestamp) -> Option<Duration> {
    let success = ended
        .iter()
        .filter(|pod| pods::phase(pod) == "Succeeded")
        .filter_map(|pod| ended_at(pod))
        .max();
    let failures: Vec<Timestamp> = ended
        .iter()
        .filter(|pod| pods::phase(pod) != "Succeeded")
        .map(|pod| ended_at(pod).unwrap_or(now))
        .filter(|at| success.is_none_or(|success| *at > success))
        .collect();
    let last = failures.iter().max()?;
    let doubled = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(6);
    let pause = (BACKOFF_FIRST * 2_i32.pow(doubled)).min(BACKOFF_MAX);
    let left = pause.saturating_sub(now.duration_since(*last));
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// When a Pod's last container ended, or when it was deleted.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let ends = statuses.into_iter().flatten().filter_map(|container| {
        let state = container.state.as_ref()?;
        state
            .terminated
            .as_ref()?
            .finished_at
            .as_ref()
            .map(|time| time.0)
    });
    ends.max().or_else(|| {
        pod.metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0)
            .or_else(|| {
                pods::condition(pod, "Ready")?
                    .last_transition_time
                    .as_ref()
                    .map(|time| time.0)
            })
    })
}
