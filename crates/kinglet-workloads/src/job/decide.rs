//! What a Job counts, which Pods it makes and takes away, and how it ends: pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kinglet_reconcile::{Severity, annotation, uid_of};

use super::ending::{self, Ending};
use super::indexes;
use crate::pods;
use crate::replicaset::worth;

/// Keeps a Pod until it has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation with the index of a Pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Who manages Jobs that say nothing else.
const OURSELVES: &str = "kubernetes.io/job-controller";
/// The most Pods created or deleted in one go, as in Kubernetes.
const BURST: usize = 500;
/// The most uids that wait in a status at once, as in Kubernetes; the Pods of others keep their finalizer meanwhile.
const UNCOUNTED_MAX: usize = 500;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) status: JobStatus,
    /// Pods that the status counts (or whose Job is over): they lose their finalizer.
    pub(super) counted: Vec<Arc<Pod>>,
    /// Pods that go and are no failures.
    pub(super) unwanted: Vec<Arc<Pod>>,
    /// Pods that go because the Job has failed.
    pub(super) doomed: Vec<Arc<Pod>>,
    /// New Pods, by index where the Job has indexes.
    pub(super) create: Vec<Option<u32>>,
    pub(super) events: Vec<(Severity, &'static str, String)>,
    /// The Job has outlived its time after its end.
    pub(super) expired: bool,
    pub(super) again: Option<Duration>,
}

impl Decision {
    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |known| known.min(after)));
    }
}

/// Whether somebody else makes this Job's Pods.
pub(super) fn is_managed_elsewhere(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.and_then(|spec| spec.managed_by.as_deref())
        .is_some_and(|manager| manager != OURSELVES)
}

/// Whether a Pod waits for being counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    let mut finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.any(|each| each == FINALIZER)
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn index_of(pod: &Pod) -> Option<u32> {
    annotation(pod, INDEX)?.parse().ok()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn natural(number: Option<i32>) -> usize {
    usize::try_from(number.unwrap_or(0)).unwrap_or(0)
}

/// What is known of a Job.
struct Seen<'a> {
    job: &'a Job,
    spec: JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
}

impl Seen<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// The number of indexes.
    fn indexes(&self) -> u32 {
        u32::try_from(self.spec.completions.unwrap_or(0)).unwrap_or(0)
    }

    /// Replacements wait until the Pod before has really ended.
    fn only_replaces_ended(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn active(&self) -> Vec<&Arc<Pod>> {
        let all = self.pods.iter();
        all.filter(|pod| !pods::is_terminal(pod) && !is_going(pod))
            .collect()
    }

    fn terminating(&self) -> Vec<&Arc<Pod>> {
        let all = self.pods.iter();
        all.filter(|pod| !pods::is_terminal(pod) && is_going(pod))
            .collect()
    }

    /// A deleted Pod counts as failed although it may never say so, unless only ended ones are replaced.
    fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            "Pending" | "" => is_going(pod),
            _ => is_going(pod) && !self.only_replaces_ended(),
        }
    }
}

/// Looks at a Job and the Pods that it controls.
pub(super) fn decide(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Decision {
    let seen = Seen {
        job,
        spec: job.spec.clone().unwrap_or_default(),
        pods,
        now,
    };
    let mut decision = Decision {
        status: job.status.clone().unwrap_or_default(),
        ..Decision::default()
    };
    if let Some(at) = ending::finished_at(job) {
        after_the_end(&seen, at, &mut decision);
        return decision;
    }
    let deleting = is_deleting(job);
    let tally = Tally::take(&seen, &mut decision);
    let active = seen.active();
    decision.status.ready = Some(count(
        active.iter().filter(|pod| pods::is_ready(pod)).count(),
    ));
    decision.status.terminating = Some(count(seen.terminating().len()));
    decision.status.active = (!active.is_empty()).then(|| count(active.len()));
    if deleting {
        decision.counted = tracked(pods);
        return decision;
    }
    suspend_or_resume(&seen, &mut decision);
    match end_of(&seen, &tally, &mut decision) {
        Some(ending) => finish(&seen, &ending, &mut decision),
        None if seen.spec.suspend == Some(true) => {
            let all = active.into_iter().take(BURST).cloned();
            decision.unwanted = all.collect();
        }
        None => balance(&seen, &tally, &mut decision),
    }
    decision
}

fn is_deleting(job: &Job) -> bool {
    job.metadata.deletion_timestamp.is_some()
}

fn tracked(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().filter(|pod| is_tracked(pod)).cloned().collect()
}

/// A finished Job lets go of its Pods, and goes itself when its time is over.
fn after_the_end(seen: &Seen<'_>, at: Timestamp, decision: &mut Decision) {
    decision.counted = tracked(seen.pods);
    let Some(seconds) = seen.spec.ttl_seconds_after_finished else {
        return;
    };
    if is_deleting(seen.job) {
        return;
    }
    let lived = seen.now.duration_since(at);
    let left = SignedDuration::from_secs(seconds.into()).saturating_sub(lived);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => decision.look_again(left),
        _ => decision.expired = decision.counted.is_empty(),
    }
}

/// How many Pods have succeeded and failed, with those that are not counted for good yet.
struct Tally {
    succeeded: usize,
    failed: usize,
    /// Indexes that have succeeded.
    done: BTreeSet<u32>,
}

impl Tally {
    /// Counts for good what has lost its finalizer, and takes up what has ended since.
    fn take(seen: &Seen<'_>, decision: &mut Decision) -> Self {
        let status = &mut decision.status;
        let mut waiting = status.uncounted_terminated_pods.take().unwrap_or_default();
        let tracked: BTreeSet<&str> = seen
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(|pod| uid_of(&**pod))
            .collect();
        let settle = |list: &mut Option<Vec<String>>| {
            let list = list.get_or_insert_default();
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            before - list.len()
        };
        let (succeeded, failed) = (settle(&mut waiting.succeeded), settle(&mut waiting.failed));
        let mut done = indexes::parse(
            status.completed_indexes.as_deref().unwrap_or(""),
            seen.indexes(),
        );
        for pod in seen.pods.iter().filter(|pod| is_tracked(pod)) {
            if take_up(seen, pod, &mut waiting, &mut done) {
                decision.counted.push(Arc::clone(pod));
            }
        }
        let pending = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let (uncounted_successes, uncounted_failures) =
            (pending(&waiting.succeeded), pending(&waiting.failed));
        let status = &mut decision.status;
        let mut all_succeeded = natural(status.succeeded) + succeeded;
        let all_failed = natural(status.failed) + failed;
        if seen.is_indexed() {
            all_succeeded = done.len();
            status.completed_indexes = (!done.is_empty()).then(|| indexes::format(&done));
        }
        let some = |number: usize| (number > 0).then(|| count(number));
        (status.succeeded, status.failed) = (some(all_succeeded), some(all_failed));
        status.uncounted_terminated_pods = Some(shown(waiting));
        Self {
            succeeded: all_succeeded + uncounted_successes,
            failed: all_failed + uncounted_failures,
            done,
        }
    }
}

/// The lists as a status shows them: an empty one is left out.
fn shown(waiting: UncountedTerminatedPods) -> UncountedTerminatedPods {
    let some = |list: Option<Vec<String>>| list.filter(|list| !list.is_empty());
    UncountedTerminatedPods {
        succeeded: some(waiting.succeeded),
        failed: some(waiting.failed),
    }
}

/// Puts a Pod that has ended into the lists. Returns whether it is in them, so that its finalizer may go.
fn take_up(
    seen: &Seen<'_>,
    pod: &Pod,
    waiting: &mut UncountedTerminatedPods,
    done: &mut BTreeSet<u32>,
) -> bool {
    let uid = uid_of(pod).to_owned();
    let (succeeded, failed) = (
        waiting.succeeded.get_or_insert_default(),
        waiting.failed.get_or_insert_default(),
    );
    if succeeded.contains(&uid) || failed.contains(&uid) {
        return true;
    }
    let index = index_of(pod).filter(|index| *index < seen.indexes());
    let room = succeeded.len() + failed.len() < UNCOUNTED_MAX;
    if pods::phase(pod) == "Succeeded" {
        match (seen.is_indexed(), index) {
            // The index is enough to count it once.
            (true, Some(index)) => {
                done.insert(index);
            }
            // Of no index, as after a Job has shrunk: it does not count.
            (true, None) => {}
            (false, _) if room => succeeded.push(uid),
            (false, _) => return false,
        }
        return true;
    }
    if !seen.has_failed(pod) {
        return false;
    }
    match (seen.is_indexed(), index) {
        (true, None) => true,
        _ if room => {
            failed.push(uid);
            true
        }
        _ => false,
    }
}

/// Says that a Job is suspended, or goes on; its time begins with its first Pods.
fn suspend_or_resume(seen: &Seen<'_>, decision: &mut Decision) {
    let now = seen.now;
    let conditions = decision.status.conditions.get_or_insert_default();
    let suspended = seen.spec.suspend == Some(true);
    let start = || Some(Time(crate::time::whole_seconds(now)));
    if suspended {
        if Ending::announced(conditions).is_none()
            && ending::set(
                conditions,
                "Suspended",
                "True",
                "JobSuspended",
                "Job suspended",
                now,
            )
        {
            let event = (Severity::Normal, "Suspended", "Job suspended".to_owned());
            decision.events.push(event);
        }
    } else if ending::set(
        conditions,
        "Suspended",
        "False",
        "JobResumed",
        "Job resumed",
        now,
    ) {
        let event = (Severity::Normal, "Resumed", "Job resumed".to_owned());
        decision.events.push(event);
        decision.status.start_time = start();
    } else if decision.status.start_time.is_none() {
        decision.status.start_time = start();
    }
    if decision
        .status
        .conditions
        .as_ref()
        .is_some_and(Vec::is_empty)
    {
        decision.status.conditions = None;
    }
}

/// How the Job ends, if it does.
fn end_of(seen: &Seen<'_>, tally: &Tally, decision: &mut Decision) -> Option<Ending> {
    let status = &decision.status;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if let Some(announced) = Ending::announced(conditions) {
        return Some(announced);
    }
    let active = seen.active();
    let running: Vec<&Pod> = active.iter().map(|pod| &***pod).collect();
    if let Some(failure) = ending::exhausted(&seen.spec, count(tally.failed), &running) {
        return Some(failure);
    }
    let start = status.start_time.as_ref().map(|time| time.0);
    if seen.spec.suspend != Some(true) {
        match ending::deadline(&seen.spec, start, seen.now) {
            Ok(Some(left)) => decision.look_again(left),
            Ok(None) => {}
            Err(failure) => return Some(failure),
        }
    }
    let complete = match seen.spec.completions {
        Some(wanted) => tally.succeeded >= natural(Some(wanted)),
        // Any success means that the others are the last.
        None => tally.succeeded > 0 && active.is_empty(),
    };
    complete.then(Ending::complete)
}

/// Brings a Job to its end: Pods go first, then all of them are counted, then the last condition says so.
fn finish(seen: &Seen<'_>, ending: &Ending, decision: &mut Decision) {
    let (announced, last, reason, message) = ending.conditions();
    let active: Vec<Arc<Pod>> = seen.active().into_iter().take(BURST).cloned().collect();
    match ending {
        Ending::Succeeds { .. } => decision.unwanted = active,
        Ending::Fails { .. } => {
            // They are counted once they are being deleted.
            decision.doomed = active;
        }
    }
    let conditions = decision.status.conditions.get_or_insert_default();
    ending::set(conditions, announced, "True", reason, message, seen.now);
    let is_settled = decision.counted.is_empty()
        && decision.unwanted.is_empty()
        && decision.doomed.is_empty()
        && seen.terminating().is_empty()
        && decision
            .status
            .uncounted_terminated_pods
            .as_ref()
            .is_none_or(|waiting| waiting.failed.is_none() && waiting.succeeded.is_none());
    if !is_settled || !ending::set(conditions, last, "True", reason, message, seen.now) {
        return;
    }
    let event = match ending {
        Ending::Succeeds { .. } => {
            decision.status.completion_time = Some(Time(crate::time::whole_seconds(seen.now)));
            (Severity::Normal, "Completed", "Job completed".to_owned())
        }
        Ending::Fails { reason, .. } => (Severity::Warning, known(reason), message.to_owned()),
    };
    decision.events.push(event);
    if let Some(seconds) = seen.spec.ttl_seconds_after_finished {
        let left = u64::try_from(seconds).unwrap_or(0);
        decision.look_again(Duration::from_secs(left));
    }
}

/// The reasons for which Jobs fail.
fn known(reason: &str) -> &'static str {
    match reason {
        "DeadlineExceeded" => "DeadlineExceeded",
        "BackoffLimitExceeded" => "BackoffLimitExceeded",
        _ => "Failed",
    }
}

/// Makes and takes away Pods until as many are active as the spec wants.
fn balance(seen: &Seen<'_>, tally: &Tally, decision: &mut Decision) {
    let active = seen.active();
    let parallelism = natural(seen.spec.parallelism.or(Some(1)));
    let wanted = match seen.spec.completions {
        None if tally.succeeded > 0 => active.len(),
        None => parallelism,
        Some(all) => natural(Some(all))
            .saturating_sub(tally.succeeded)
            .min(parallelism),
    };
    let surplus = surplus(seen, tally, &active, wanted);
    if !surplus.is_empty() {
        decision.unwanted = surplus;
        return;
    }
    let replaced = if seen.only_replaces_ended() {
        seen.terminating().len()
    } else {
        0
    };
    let missing = wanted.saturating_sub(active.len() + replaced).min(BURST);
    if missing == 0 {
        return;
    }
    let ended: Vec<&Pod> = seen
        .pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| pods::phase(pod) == "Succeeded" || seen.has_failed(pod))
        .collect();
    if let Some(pause) = ending::backoff(&ended, seen.now) {
        decision.look_again(pause);
        return;
    }
    decision.create = if seen.is_indexed() {
        free_indexes(seen, tally, missing)
    } else {
        vec![None; missing]
    };
}

/// The indexes without a Pod, in order.
fn free_indexes(seen: &Seen<'_>, tally: &Tally, missing: usize) -> Vec<Option<u32>> {
    let mut taken: BTreeSet<u32> = seen
        .active()
        .iter()
        .filter_map(|pod| index_of(pod))
        .collect();
    if seen.only_replaces_ended() {
        taken.extend(seen.terminating().iter().filter_map(|pod| index_of(pod)));
    }
    (0..seen.indexes())
        .filter(|index| !tally.done.contains(index) && !taken.contains(index))
        .take(missing)
        .map(Some)
        .collect()
}

/// Active Pods that are too many: of no index or of one that has another Pod already, then the least worthy.
fn surplus(seen: &Seen<'_>, tally: &Tally, active: &[&Arc<Pod>], wanted: usize) -> Vec<Arc<Pod>> {
    let mut order: Vec<&Arc<Pod>> = active.to_vec();
    order.sort_by_key(|pod| worth(pod, seen.now));
    let mut surplus: Vec<Arc<Pod>> = Vec::new();
    if seen.is_indexed() {
        let mut best: BTreeMap<u32, &Arc<Pod>> = BTreeMap::new();
        for pod in order.iter().copied() {
            match index_of(pod)
                .filter(|index| *index < seen.indexes() && !tally.done.contains(index))
            {
                Some(index) => surplus.extend(best.insert(index, pod).cloned()),
                None => surplus.push(Arc::clone(pod)),
            }
        }
    }
    let left = order
        .into_iter()
        .filter(|pod| !surplus.iter().any(|gone| Arc::ptr_eq(gone, pod)))
        .cloned()
        .collect::<Vec<_>>();
    let more = left.len().saturating_sub(wanted);
    surplus.extend(left.into_iter().take(more));
    surplus.truncate(BURST);
    surplus
}
