//! The cells of Nodes.

use serde_json::Value;

use super::{Row, or_none};
use crate::object::{at, items, text};

pub(super) fn node(row: Row<'_>) -> Vec<Value> {
    let object = row.object;
    let address = |kind: &str| {
        let found = items(object, &["status", "addresses"])
            .iter()
            .find(|a| text(a, &["type"]) == kind);
        found.map_or("<none>", |a| text(a, &["address"]))
    };
    let info = |field: &str| match text(object, &["status", "nodeInfo", field]) {
        "" => "<unknown>",
        value => value,
    };
    vec![
        row.name,
        ready(object).into(),
        or_none(&roles(object)).into(),
        row.age,
        text(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

/// Returns whether the node takes pods, as `kubectl` prints it.
fn ready(object: &Value) -> String {
    let ready = items(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

/// Returns the roles that labels give the node.
fn roles(object: &Value) -> Vec<String> {
    at(object, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role.to_owned()),
                _ if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
                _ => None,
            },
        )
        .collect()
}
