//! Defaults of custom resources.

use serde_json::Value;

use super::node::Node;

/// Drops nulls where none are allowed, then fills in what is missing.
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let child = node
                    .properties
                    .get(name.as_str())
                    .or(node.additional.as_deref());
                !value.is_null() || child.is_none_or(|child| child.nullable || child.preserve)
            });
            for (name, child) in &node.properties {
                if let Some(default) = &child.default
                    && !fields.contains_key(&**name)
                {
                    fields.insert((**name).to_owned(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(child) = node
                    .properties
                    .get(name.as_str())
                    .or(node.additional.as_deref())
                {
                    fill(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                items.iter_mut().for_each(|item| fill(child, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
