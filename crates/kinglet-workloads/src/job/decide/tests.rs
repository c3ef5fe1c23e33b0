//! What a Job does about its Pods, from its first look to its end.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn at(second: i64) -> String {
    Timestamp::from_second(second).unwrap().to_string()
}

fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({"metadata": {"name": "j", "namespace": "a", "uid": "u"}, "spec": {
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never", "containers": []}}}, "status": status});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

/// A Pod that is tracked; `index` below zero is none.
fn pod(name: &str, phase: &str, index: i64) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "finalizers": [FINALIZER]},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "finishedAt": at(999_000)}}}]}});
    if index >= 0 {
        pod["metadata"]["annotations"] = json!({INDEX: index.to_string()});
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn changed(pod: &Arc<Pod>, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    change(&mut pod);
    Arc::new(pod)
}

fn released(pod: &Arc<Pod>) -> Arc<Pod> {
    changed(pod, |pod| pod.metadata.finalizers = None)
}

fn going(pod: &Arc<Pod>) -> Arc<Pod> {
    changed(pod, |pod| {
        pod.metadata.deletion_timestamp = Some(Time(now()));
    })
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter()
        .map(|pod| pod.metadata.name.as_deref().unwrap())
        .collect()
}

/// The same Job after the status of a decision was written.
fn then(job: &Job, decision: &Decision) -> Job {
    Job {
        status: Some(decision.status.clone()),
        ..job.clone()
    }
}

fn conditions(status: &JobStatus) -> Vec<(String, String)> {
    let listed = status.conditions.iter().flatten();
    listed
        .map(|each| (each.type_.clone(), each.reason.clone().unwrap_or_default()))
        .collect()
}

fn reasons(decision: &Decision) -> Vec<&str> {
    decision
        .events
        .iter()
        .map(|(_, reason, _)| *reason)
        .collect()
}

#[test]
fn a_job_makes_its_pods_counts_them_once_and_is_complete() {
    let first = job(json!({"completions": 3, "parallelism": 2}), json!({}));
    let look = decide(&first, &[], now());
    assert_eq!(look.create, [None, None]);
    assert_eq!(look.status.start_time, Some(Time(now())));
    let second = then(&first, &look);
    let (one, two) = (pod("one", "Succeeded", -1), pod("two", "Running", -1));
    let look = decide(&second, &[one.clone(), two.clone()], now());
    // In the lists first, in the numbers when the finalizer is gone.
    assert_eq!(names(&look.counted), ["one"]);
    assert_eq!((look.status.succeeded, look.status.active), (None, Some(1)));
    assert_eq!(look.create, [None]);
    let third = then(&second, &look);
    let look = decide(&third, &[one.clone(), two.clone()], now());
    assert_eq!(names(&look.counted), ["one"], "tried again");
    let look = decide(&third, &[released(&one), two], now());
    assert_eq!(look.status.succeeded, Some(1));
    assert_eq!(
        look.status.uncounted_terminated_pods,
        Some(UncountedTerminatedPods::default())
    );
    let mut last = then(&third, &look);
    last.status.as_mut().unwrap().succeeded = Some(2);
    let three = pod("three", "Succeeded", -1);
    let look = decide(&last, std::slice::from_ref(&three), now());
    let (reason, of) = ("CompletionsReached", |kind: &str, reason: &str| {
        (kind.to_owned(), reason.to_owned())
    });
    assert_eq!(conditions(&look.status), [of("SuccessCriteriaMet", reason)]);
    let look = decide(&then(&last, &look), &[released(&three)], now());
    assert_eq!(
        conditions(&look.status),
        [of("SuccessCriteriaMet", reason), of("Complete", reason)]
    );
    assert_eq!(
        (look.status.succeeded, look.status.completion_time.is_some()),
        (Some(3), true)
    );
    assert_eq!(reasons(&look), ["Completed"]);
}

#[test]
fn failures_wait_longer_each_time_and_end_a_job_at_its_limit() {
    let job_of = |failed: i32| {
        job(
            json!({"backoffLimit": 2}),
            json!({"failed": failed, "startTime": at(900_000)}),
        )
    };
    let recent = |name: &str, ago: i64| {
        changed(&released(&pod(name, "Failed", -1)), |pod| {
            let status = pod.status.as_mut().unwrap();
            let container = &mut status.container_statuses.as_mut().unwrap()[0];
            let ended = container
                .state
                .as_mut()
                .unwrap()
                .terminated
                .as_mut()
                .unwrap();
            ended.finished_at = Some(Time(Timestamp::from_second(1_000_000 - ago).unwrap()));
        })
    };
    let look = decide(&job_of(1), &[recent("a", 4)], now());
    assert_eq!(
        (look.create.len(), look.again),
        (0, Some(Duration::from_secs(6)))
    );
    let look = decide(&job_of(2), &[recent("a", 14), recent("b", 4)], now());
    assert_eq!(look.again, Some(Duration::from_secs(16)));
    let look = decide(&job_of(2), &[recent("a", 34), recent("b", 24)], now());
    assert_eq!(look.create, [None]);
    let running = pod("r", "Running", -1);
    let look = decide(&job_of(3), std::slice::from_ref(&running), now());
    assert_eq!(names(&look.doomed), ["r"]);
    assert_eq!(
        conditions(&look.status),
        [(
            "FailureTarget".to_owned(),
            "BackoffLimitExceeded".to_owned()
        )]
    );
    // The Pod that went with the Job is a failure, too, and waited for.
    let next = then(&job_of(3), &look);
    let look = decide(&next, &[going(&running)], now());
    assert_eq!(names(&look.counted), ["r"]);
    let next = then(&next, &look);
    let look = decide(&next, &[going(&released(&running))], now());
    assert_eq!(
        (look.status.failed, look.status.terminating),
        (Some(4), Some(1))
    );
    assert_eq!(conditions(&look.status).len(), 1);
    let look = decide(&then(&next, &look), &[], now());
    assert_eq!(conditions(&look.status)[1].0, "Failed");
    assert_eq!(reasons(&look), ["BackoffLimitExceeded"]);
}

#[test]
fn restarts_in_place_count_against_the_limit() {
    let of = |limit: i32| {
        job(
            json!({"backoffLimit": limit, "template": {"spec": {"restartPolicy": "OnFailure", "containers": []}}}),
            json!({}),
        )
    };
    let restarted = |times: i32| {
        changed(&pod("r", "Running", -1), |pod| {
            let status = pod.status.as_mut().unwrap();
            status.container_statuses.as_mut().unwrap()[0].restart_count = times;
        })
    };
    for (limit, restarts, ends) in [(2, 1, false), (2, 2, true), (0, 0, false), (0, 1, true)] {
        let look = decide(&of(limit), &[restarted(restarts)], now());
        assert_eq!(!look.doomed.is_empty(), ends, "{limit} {restarts}");
    }
}

#[test]
fn deadlines_and_lives_after_the_end_are_kept() {
    let late = |seconds: i64| {
        job(
            json!({"activeDeadlineSeconds": seconds}),
            json!({"startTime": at(999_900)}),
        )
    };
    let running = [pod("r", "Running", -1)];
    let look = decide(&late(130), &running, now());
    assert_eq!(look.again, Some(Duration::from_secs(30)));
    let look = decide(&late(100), &running, now());
    assert_eq!(
        conditions(&look.status),
        [("FailureTarget".to_owned(), "DeadlineExceeded".to_owned())]
    );
    let over = |seconds: i64| {
        job(
            json!({"ttlSecondsAfterFinished": seconds}),
            json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": at(999_900)}]}),
        )
    };
    let look = decide(&over(130), &[], now());
    assert_eq!(
        (look.expired, look.again),
        (false, Some(Duration::from_secs(30)))
    );
    assert!(decide(&over(100), &[], now()).expired);
    let look = decide(&over(100), &running, now());
    assert_eq!((look.expired, names(&look.counted)), (false, vec!["r"]));
}

#[test]
fn indexes_are_filled_in_order_and_counted_by_number() {
    let indexed = job(
        json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3}),
        json!({"completedIndexes": "0"}),
    );
    let pods = [
        pod("two", "Running", 2),
        pod("one", "Succeeded", 1),
        pod("nine", "Running", 9),
    ];
    let look = decide(&indexed, &pods, now());
    assert_eq!(
        (
            look.status.completed_indexes.as_deref(),
            look.status.succeeded
        ),
        (Some("0,1"), Some(2))
    );
    assert_eq!(
        (names(&look.counted), names(&look.unwanted)),
        (vec!["one"], vec!["nine"])
    );
    let look = decide(&then(&indexed, &look), &pods[..1], now());
    assert_eq!(look.create, [Some(3), Some(4)]);
    let twice = [pod("a", "Pending", 2), pod("b", "Running", 2)];
    let look = decide(&indexed, &twice, now());
    assert_eq!(names(&look.unwanted), ["a"], "the less worthy one");
}

#[test]
fn a_suspended_job_has_no_pods_and_begins_anew_when_it_goes_on() {
    let suspended = job(
        json!({"suspend": true, "parallelism": 2, "completions": 2}),
        json!({"startTime": at(900_000)}),
    );
    let running = [pod("r", "Running", -1)];
    let look = decide(&suspended, &running, now());
    assert_eq!(
        (names(&look.unwanted), look.create.len(), reasons(&look)),
        (vec!["r"], 0, vec!["Suspended"])
    );
    assert_eq!(look.status.failed, None);
    let mut resumed = then(&suspended, &look);
    resumed.spec.as_mut().unwrap().suspend = Some(false);
    let look = decide(&resumed, &[], now());
    assert_eq!(
        (look.create.len(), reasons(&look), &look.status.start_time),
        (2, vec!["Resumed"], &Some(Time(now())))
    );
}

#[test]
fn replacements_wait_for_the_end_where_the_policy_says_so() {
    let of = |policy: &str| job(json!({"podReplacementPolicy": policy}), json!({}));
    let leaving = [going(&pod("r", "Running", -1))];
    let look = decide(&of("TerminatingOrFailed"), &leaving, now());
    assert_eq!(
        look.status
            .uncounted_terminated_pods
            .as_ref()
            .and_then(|waiting| waiting.failed.as_deref()),
        Some(&["r".to_owned()][..])
    );
    let look = decide(&of("Failed"), &leaving, now());
    assert_eq!((look.create.len(), look.counted.len()), (0, 0));
    assert_eq!(look.status.terminating, Some(1));
}

#[test]
fn without_completions_the_first_success_ends_it() {
    let queue = job(
        json!({"completions": null, "parallelism": 2}),
        json!({"succeeded": 1}),
    );
    let running = [pod("r", "Running", -1)];
    let look = decide(&queue, &running, now());
    assert!(look.create.is_empty() && look.unwanted.is_empty());
    assert_eq!(look.status.conditions, None);
    let look = decide(&queue, &[], now());
    assert_eq!(conditions(&look.status)[0].0, "SuccessCriteriaMet");
}

#[test]
fn a_job_that_is_deleted_lets_go_of_its_pods() {
    let mut leaving = job(json!({}), json!({}));
    leaving.metadata.deletion_timestamp = Some(Time(now()));
    let look = decide(&leaving, &[pod("r", "Running", -1)], now());
    assert_eq!((names(&look.counted), look.create.len()), (vec!["r"], 0));
}
