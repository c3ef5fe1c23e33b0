//! The cells of built-in kinds: one function a kind, and what they share.

mod access;
mod event;
mod network;
mod node;
mod policy;
mod workloads;

use jiff::Timestamp;
use serde_json::Value;

use super::{age, pods};
use crate::kinds::Builtin;
use crate::object::{items, number, text};

/// An object and the two cells that nearly every kind has.
struct Row<'a> {
    object: &'a Value,
    name: Value,
    age: Value,
}

impl<'a> Row<'a> {
    fn of(object: &'a Value, now: Timestamp) -> Self {
        let created = text(object, &["metadata", "creationTimestamp"]);
        Self {
            object,
            name: text(object, &["metadata", "name"]).into(),
            age: age::since(Some(created), now).into(),
        }
    }

    /// Returns a text field.
    fn field(&self, path: &[&str]) -> Value {
        text(self.object, path).into()
    }

    /// Returns a number field, 0 where it is missing.
    fn count(&self, path: &[&str]) -> Value {
        number(self.object, path).unwrap_or(0).into()
    }

    /// Returns a row of the name, one cell and the age.
    fn with(self, cell: impl Into<Value>) -> Vec<Value> {
        vec![self.name, cell.into(), self.age]
    }
}

/// Returns the cells of an object, one for each column of its kind.
pub(crate) fn cells(builtin: Builtin, object: &Value, now: Timestamp) -> Vec<Value> {
    let row = Row::of(object, now);
    match builtin {
        Builtin::Pod => pods::cells(object, now),
        Builtin::Deployment => workloads::deployment(row),
        Builtin::ReplicaSet => workloads::replica_set(row),
        Builtin::Job => workloads::job(row, now),
        Builtin::HorizontalPodAutoscaler => workloads::horizontal_pod_autoscaler(row),
        Builtin::Service => network::service(row),
        Builtin::Endpoints => network::endpoints(row),
        Builtin::EndpointSlice => network::endpoint_slice(row),
        Builtin::ConfigMap => row.with(size(object, "data") + size(object, "binaryData")),
        Builtin::Secret => secret(row),
        Builtin::Namespace => row.with(text(object, &["status", "phase"])),
        Builtin::ServiceAccount => row.with(items(object, &["secrets"]).len()),
        Builtin::Node => node::node(row),
        Builtin::Event => event::event(row, now),
        Builtin::Lease => row.with(text(object, &["spec", "holderIdentity"])),
        Builtin::ResourceQuota => policy::resource_quota(row),
        Builtin::PriorityClass => policy::priority_class(row),
        Builtin::PodDisruptionBudget => policy::pod_disruption_budget(row),
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => access::binding(row),
        Builtin::LimitRange
        | Builtin::Role
        | Builtin::ClusterRole
        | Builtin::CustomResourceDefinition
        | Builtin::TokenReview
        | Builtin::SelfSubjectReview
        | Builtin::SelfSubjectAccessReview
        | Builtin::SubjectAccessReview
        | Builtin::LocalSubjectAccessReview
        | Builtin::Absent
        | Builtin::SelfSubjectRulesReview => {
            vec![
                row.name,
                text(object, &["metadata", "creationTimestamp"]).into(),
            ]
        }
    }
}

fn secret(row: Row<'_>) -> Vec<Value> {
    let kind = row.field(&["type"]);
    let entries = size(row.object, "data");
    vec![row.name, kind, entries.into(), row.age]
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() {
        "<none>".to_owned()
    } else {
        list.join(",")
    }
}

fn size(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}
