//! What kubectl and controllers do to each other's fields.

#![allow(
    clippy::needless_pass_by_value,
    reason = "builders of test objects read better by value"
)]

mod conflicts;
mod lists;
mod ownership;
mod properties;
mod recorded;
mod schemas;
mod versions;

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2024-05-06T07:08:09Z";
const LATER: &str = "2024-05-06T08:08:09Z";

/// Tracks a write of a kind with one version, or whose versions convert.
fn track_update(live: Option<&Value>, new: &mut Value, writer: Writer<'_>, types: TypeInfo<'_>) {
    super::track_update(live, new, writer, types).unwrap();
}

fn by(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: NOW,
    }
}

fn deployments() -> TypeInfo<'static> {
    TypeInfo::builtin("apps", "v1", "Deployment")
        .unwrap()
        .with_status_subresource(true)
}

fn config_maps() -> TypeInfo<'static> {
    TypeInfo::builtin("", "v1", "ConfigMap").unwrap()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": data})
}

/// The config map after `manager` has applied `data` to it.
fn applied(live: Option<&Value>, manager: &str, data: Value) -> Value {
    apply(live, &config_map(data), by(manager), false, config_maps()).unwrap()
}

fn fields_of<'v>(object: &'v Value, manager: &str) -> Option<&'v Value> {
    let listed = object["metadata"]["managedFields"].as_array()?;
    listed
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map(|entry| &entry["fieldsV1"])
}

fn refused(outcome: Result<Value, ApplyError>) -> Conflicts {
    match outcome {
        Err(ApplyError::Conflicts(conflicts)) => conflicts,
        other => panic!("no conflict: {other:?}"),
    }
}
