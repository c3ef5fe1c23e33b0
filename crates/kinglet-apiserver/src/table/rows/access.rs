//! The cells of role bindings.

use serde_json::Value;

use super::Row;
use crate::object::{items, text};

pub(super) fn binding(row: Row<'_>) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text(row.object, &["roleRef", "kind"]),
        text(row.object, &["roleRef", "name"])
    );
    let subjects = ["User", "Group", "ServiceAccount"].map(|kind| subjects(row.object, kind));
    let mut cells = vec![row.name, role.into(), row.age];
    cells.extend(subjects);
    cells
}

/// Returns the subjects of one kind, joined.
fn subjects(object: &Value, kind: &str) -> Value {
    let list: Vec<String> = items(object, &["subjects"])
        .iter()
        .filter(|subject| text(subject, &["kind"]) == kind)
        .map(|subject| match (kind, text(subject, &["namespace"])) {
            ("ServiceAccount", namespace) => {
                format!("{namespace}/{}", text(subject, &["name"]))
            }
            _ => text(subject, &["name"]).to_owned(),
        })
        .collect();
    list.join(", ").into()
}
