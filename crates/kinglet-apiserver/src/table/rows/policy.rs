//! The cells of quotas, priorities and disruption budgets.

use serde_json::Value;

use super::{Row, plain};
use crate::object::at;

pub(super) fn resource_quota(row: Row<'_>) -> Vec<Value> {
    let (request, limit) = quota(row.object);
    vec![row.name, request.into(), limit.into(), row.age]
}

fn quota(object: &Value) -> (String, String) {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (key, hard) in at(object, &["status", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let used = at(object, &["status", "used", key]).map_or_else(|| "0".to_owned(), plain);
        let entry = format!("{key}: {used}/{}", plain(hard));
        if key.starts_with("limits.") {
            limits.push(entry)
        } else {
            requests.push(entry)
        }
    }
    (requests.join(", "), limits.join(", "))
}

pub(super) fn priority_class(row: Row<'_>) -> Vec<Value> {
    let policy = row.field(&["preemptionPolicy"]);
    vec![
        row.name,
        row.object["value"].clone(),
        row.object["globalDefault"]
            .as_bool()
            .unwrap_or(false)
            .into(),
        row.age,
        policy,
    ]
}

pub(super) fn pod_disruption_budget(row: Row<'_>) -> Vec<Value> {
    let or_na = |key: &str| at(row.object, &["spec", key]).map_or_else(|| "N/A".to_owned(), plain);
    let (min, max) = (or_na("minAvailable"), or_na("maxUnavailable"));
    let allowed = row.count(&["status", "disruptionsAllowed"]);
    vec![row.name, min.into(), max.into(), allowed, row.age]
}
