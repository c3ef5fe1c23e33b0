//! The STATUS of a pod, which is a summary of nearly everything in it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age;
use crate::object::{at, is_deleting, is_ready, items, number, text};

/// Cells of a pod's row.
pub(crate) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match (&summary.last_restart, summary.restarts) {
        (Some(time), count) if count > 0 => {
            format!("{count} ({} ago)", age::since(Some(time), now))
        }
        (_, count) => count.to_string(),
    };
    let or_none = |value: &str| {
        if value.is_empty() {
            "<none>".to_owned()
        } else {
            value.to_owned()
        }
    };
    let addresses = items(pod, &["status", "podIPs"]);
    let ip = addresses.first().map_or_else(
        || text(pod, &["status", "podIP"]),
        |each| text(each, &["ip"]),
    );
    let gates = items(pod, &["spec", "readinessGates"]);
    let ready_gates = gates
        .iter()
        .filter(|gate| condition(pod, text(gate, &["conditionType"])) == Some("True"))
        .count();
    vec![
        text(pod, &["metadata", "name"]).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age::since(
            at(pod, &["metadata", "creationTimestamp"]).and_then(Value::as_str),
            now,
        )
        .into(),
        or_none(ip).into(),
        or_none(text(pod, &["spec", "nodeName"])).into(),
        or_none(text(pod, &["status", "nominatedNodeName"])).into(),
        if gates.is_empty() {
            "<none>".into()
        } else {
            format!("{ready_gates}/{}", gates.len()).into()
        },
    ]
}

/// What marks the row of a finished pod.
pub(crate) fn row_conditions(pod: &Value) -> Option<Value> {
    let one = |reason: &str, message: &str| json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    match text(pod, &["status", "phase"]) {
        "Succeeded" => Some(one("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(one("Failed", "The pod failed.")),
        _ => None,
    }
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    items(pod, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == kind)
        .map(|c| text(c, &["status"]))
}

fn summarize(pod: &Value) -> Summary {
    let phase = text(pod, &["status", "phase"]);
    let own = text(pod, &["status", "reason"]);
    let mut reason = if own.is_empty() { phase } else { own }.to_owned();
    if items(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated")
    {
        reason = "SchedulingGated".to_owned();
    }
    let sidecars: Vec<&str> = items(pod, &["spec", "initContainers"])
        .iter()
        .filter(|c| text(c, &["restartPolicy"]) == "Always")
        .map(|c| text(c, &["name"]))
        .collect();
    let mut summary = Summary {
        reason,
        ready: 0,
        total: items(pod, &["spec", "containers"]).len() + sidecars.len(),
        restarts: 0,
        last_restart: None,
    };
    let (initializing, sidecar_restarts) = initial(pod, &sidecars, &mut summary);
    if !initializing || condition(pod, "Initialized") == Some("True") {
        summary.restarts = sidecar_restarts;
        main(pod, &mut summary);
    }
    if is_deleting(pod) {
        if own == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn restarted(status: &Value, summary: &mut Summary) {
    summary.restarts += number(status, &["restartCount"]).unwrap_or(0);
    let finished = text(status, &["lastState", "terminated", "finishedAt"]);
    if !finished.is_empty()
        && summary
            .last_restart
            .as_deref()
            .is_none_or(|last| last < finished)
    {
        summary.last_restart = Some(finished.to_owned());
    }
}

/// How a container ended that gives no reason.
fn ended(terminated: &Value) -> String {
    match number(terminated, &["signal"]).unwrap_or(0) {
        0 => format!(
            "ExitCode:{}",
            number(terminated, &["exitCode"]).unwrap_or(0)
        ),
        signal => format!("Signal:{signal}"),
    }
}

fn initial(pod: &Value, sidecars: &[&str], summary: &mut Summary) -> (bool, i64) {
    let mut sidecar_restarts = 0;
    for (index, status) in items(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        restarted(status, summary);
        let is_sidecar = sidecars.contains(&text(status, &["name"]));
        if is_sidecar {
            sidecar_restarts += number(status, &["restartCount"]).unwrap_or(0);
        }
        let terminated = at(status, &["state", "terminated"]);
        let waiting = text(status, &["state", "waiting", "reason"]);
        if terminated.is_some_and(|t| number(t, &["exitCode"]) == Some(0)) {
            continue;
        }
        if is_sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.reason = match terminated {
            Some(terminated) => match text(terminated, &["reason"]) {
                "" => format!("Init:{}", ended(terminated)),
                reason => format!("Init:{reason}"),
            },
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!(
                "Init:{index}/{}",
                items(pod, &["spec", "initContainers"]).len()
            ),
        };
        return (true, sidecar_restarts);
    }
    (false, sidecar_restarts)
}

fn main(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in items(pod, &["status", "containerStatuses"]).iter().rev() {
        restarted(status, summary);
        let waiting = text(status, &["state", "waiting", "reason"]);
        let terminated = at(status, &["state", "terminated"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = terminated {
            summary.reason = match text(terminated, &["reason"]) {
                "" => ended(terminated),
                reason => reason.to_owned(),
            };
        } else if status["ready"] == true && at(status, &["state", "running"]).is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if is_ready(pod) { "Running" } else { "NotReady" }.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pod: &Value) -> (String, String, String) {
        let cells = cells(pod, "2026-01-01T00:10:00Z".parse().unwrap());
        let cell = |at: usize| cells[at].as_str().unwrap().to_owned();
        (cell(1), cell(2), cell(3))
    }

    #[test]
    fn a_pod_is_summed_up() {
        let base = |status: Value| json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status});
        let running =
            json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let crashed = json!({"name": "b", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}});
        assert_eq!(
            status(&base(json!({"phase": "Pending"}))),
            ("0/2".into(), "Pending".into(), "0".into())
        );
        assert_eq!(
            status(&base(
                json!({"phase": "Running", "containerStatuses": [running, running]})
            )),
            ("2/2".into(), "Running".into(), "0".into())
        );
        assert_eq!(
            status(&base(
                json!({"phase": "Running", "containerStatuses": [running, crashed]})
            )),
            (
                "1/2".into(),
                "CrashLoopBackOff".into(),
                "2 (60s ago)".into()
            )
        );
        let mut going = base(json!({"phase": "Running", "containerStatuses": [running]}));
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(status(&going).1, "Terminating");
    }
}
