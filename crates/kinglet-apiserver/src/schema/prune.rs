//! Fields that a schema does not know.

use serde_json::Value;

use super::builtin;
use super::node::Node;

/// Removes and names unknown fields. `known` says whether unknown fields matter here (they do not below preserve-unknown-fields,
/// until a schema lists properties again).
pub(super) fn walk(
    node: &Node,
    value: &mut Value,
    resource: bool,
    known: bool,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let resource = resource || node.embedded;
    match value {
        Value::Object(fields) => {
            let strict = known && !node.preserve && node.additional.is_none();
            let mut gone = Vec::new();
            for (name, value) in fields.iter_mut() {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                match (resource, name.as_str()) {
                    (true, "apiVersion" | "kind") => {}
                    (true, "metadata") => builtin::prune_metadata(value, path, found),
                    _ => match node
                        .properties
                        .get(name.as_str())
                        .or(node.additional.as_deref())
                    {
                        Some(child) => walk(child, value, false, true, path, found),
                        None if strict => {
                            found.push(path.clone());
                            gone.push(name.clone());
                        }
                        None => {}
                    },
                }
                path.truncate(length);
            }
            for name in gone {
                fields.remove(&name);
            }
        }
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            for (at, item) in items.iter_mut().enumerate() {
                let length = path.len();
                path.push_str(&format!("[{at}]"));
                walk(child, item, false, true, path, found);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
