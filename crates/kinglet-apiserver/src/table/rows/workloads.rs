//! The cells of Deployments, ReplicaSets and their autoscalers.

use jiff::Timestamp;
use serde_json::Value;

use super::super::age;
use super::Row;
use crate::object::{items, number, selector_text, text};

pub(super) fn deployment(row: Row<'_>) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        number(row.object, &["status", "readyReplicas"]).unwrap_or(0),
        number(row.object, &["spec", "replicas"]).unwrap_or(0)
    );
    let (updated, available) = (
        row.count(&["status", "updatedReplicas"]),
        row.count(&["status", "availableReplicas"]),
    );
    let mut cells = vec![row.name, ready.into(), updated, available, row.age];
    cells.extend(template_cells(row.object));
    cells
}

pub(super) fn replica_set(row: Row<'_>) -> Vec<Value> {
    let (desired, current, ready) = (
        row.count(&["spec", "replicas"]),
        row.count(&["status", "replicas"]),
        row.count(&["status", "readyReplicas"]),
    );
    let mut cells = vec![row.name, desired, current, ready, row.age];
    cells.extend(template_cells(row.object));
    cells
}

pub(super) fn job(row: Row<'_>, now: Timestamp) -> Vec<Value> {
    let object = row.object;
    let succeeded = number(object, &["status", "succeeded"]).unwrap_or(0);
    let completions = match number(object, &["spec", "completions"]) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match number(object, &["spec", "parallelism"]) {
            Some(several) if several > 1 => format!("{succeeded}/1 of {several}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let time = |field: &str| text(object, &["status", field]).parse::<Timestamp>().ok();
    let ended = ended_at(object).or_else(|| time("completionTime"));
    let duration = time("startTime")
        .map(|start| age::short(ended.unwrap_or(now).duration_since(start).as_secs()))
        .unwrap_or_default();
    let mut cells = vec![
        row.name,
        job_status(object).into(),
        completions.into(),
        duration.into(),
        row.age,
    ];
    cells.extend(template_cells(object));
    cells
}

fn is_true(object: &Value, kind: &str) -> bool {
    items(object, &["status", "conditions"])
        .iter()
        .any(|each| text(each, &["type"]) == kind && text(each, &["status"]) == "True")
}

/// When a failed Job ended.
fn ended_at(object: &Value) -> Option<Timestamp> {
    let failed = items(object, &["status", "conditions"])
        .iter()
        .find(|each| text(each, &["type"]) == "Failed" && text(each, &["status"]) == "True")?;
    text(failed, &["lastTransitionTime"]).parse().ok()
}

/// The state of a Job in one word.
fn job_status(object: &Value) -> &'static str {
    let ended = ["Complete", "Failed"]
        .into_iter()
        .find(|kind| is_true(object, kind));
    if let Some(ended) = ended {
        return ended;
    }
    if !text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        return "Terminating";
    }
    ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
        .into_iter()
        .find(|kind| is_true(object, kind))
        .unwrap_or("Running")
}

/// Returns containers, images and selector of a pod template.
fn template_cells(object: &Value) -> [Value; 3] {
    let containers = items(object, &["spec", "template", "spec", "containers"]);
    let column = |field: &str| {
        containers
            .iter()
            .map(|c| text(c, &[field]))
            .collect::<Vec<_>>()
            .join(",")
    };
    let selector = selector_text(&object["spec"]["selector"]);
    let selector = if selector.is_empty() {
        "<none>".to_owned()
    } else {
        selector
    };
    [
        column("name").into(),
        column("image").into(),
        selector.into(),
    ]
}

pub(super) fn horizontal_pod_autoscaler(row: Row<'_>) -> Vec<Value> {
    let object = row.object;
    let reference = format!(
        "{}/{}",
        text(object, &["spec", "scaleTargetRef", "kind"]),
        text(object, &["spec", "scaleTargetRef", "name"])
    );
    let least = number(object, &["spec", "minReplicas"])
        .map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    let (most, replicas) = (
        row.count(&["spec", "maxReplicas"]),
        row.count(&["status", "currentReplicas"]),
    );
    vec![
        row.name,
        reference.into(),
        targets(object).into(),
        least.into(),
        most,
        replicas,
        row.age,
    ]
}

fn targets(object: &Value) -> String {
    let all: Vec<String> = items(object, &["spec", "metrics"])
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            let name = text(metric, &["resource", "name"]);
            let now = items(object, &["status", "currentMetrics"]).get(index);
            let wanted = &metric["resource"]["target"];
            let (kind, current, target) = match number(wanted, &["averageUtilization"]) {
                Some(percent) => {
                    let now = now.and_then(|now| {
                        number(now, &["resource", "current", "averageUtilization"])
                    });
                    ("%", now.map(|n| n.to_string()), percent.to_string())
                }
                None => (
                    "",
                    now.map(|now| text(now, &["resource", "current", "averageValue"]).to_owned()),
                    text(wanted, &["averageValue"]).to_owned(),
                ),
            };
            let current = current.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}{kind}"));
            format!("{name}: {current}/{target}{kind}")
        })
        .collect();
    listed_metrics(&all)
}

fn listed_metrics(all: &[String]) -> String {
    match all {
        [] => "<none>".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} + {} more...", rest.len()),
    }
}
