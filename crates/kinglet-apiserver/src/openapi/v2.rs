//! `/openapi/v2`: one Swagger document of all groups, which clients before Kubernetes 1.27 read, and later ones for kinds they do not find in version 3.
//!
//! Flow: the schemas of version 3 -> here, in the simpler language of version 2 -> JSON, or gnostic's protobuf form (`v2::protobuf`).
//! Always: what version 2 cannot say (alternatives, several types) becomes "anything", so that no client refuses what the server would take.

mod protobuf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Builtin, Served, paths, schemas};

pub(crate) use protobuf::encode;

/// The kinds of one group and version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) served: &'a [Served<'a>],
}

/// Collects groups into one document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    paths: BTreeMap<String, Value>,
    definitions: BTreeMap<String, Value>,
}

impl Document {
    pub(crate) fn add(&mut self, group: Group<'_>, builtin: Builtin<'_>) {
        let Group {
            group,
            version,
            served,
        } = group;
        for kind in served {
            let name = schemas::name_of(group, version, kind);
            for (path, operations) in paths::of(group, version, kind, &name) {
                self.paths.insert(path, path_item(&operations));
            }
            schemas::write(group, version, kind, builtin, &mut |name, schema| {
                self.define(name, schema);
            });
        }
        if served.iter().any(|kind| kind.schema.is_some()) {
            schemas::write_metadata(builtin, &mut |name, schema| self.define(name, schema));
        }
    }

    fn define(&mut self, name: &str, schema: &Value) {
        if !self.definitions.contains_key(name) {
            self.definitions.insert(name.to_owned(), simple(schema, 0));
        }
    }

    /// The document; references that lead nowhere become "anything".
    pub(crate) fn finish(self) -> Value {
        let names: std::collections::BTreeSet<String> = self.definitions.keys().cloned().collect();
        let definitions: Map<String, Value> = self
            .definitions
            .into_iter()
            .map(|(name, mut schema)| {
                settle(&mut schema, &names);
                (name, schema)
            })
            .collect();
        let paths: Map<String, Value> = self.paths.into_iter().collect();
        json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.34.4"},
            "paths": paths, "definitions": definitions,
        })
    }
}

/// Operations with the parameters that clients look for.
fn path_item(operations: &Value) -> Value {
    let item: Map<String, Value> = operations
        .as_object()
        .into_iter()
        .flatten()
        .map(|(method, operation)| {
            let parameters: Vec<Value> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parameter| {
                    json!({"name": parameter["name"], "in": "query", "type": parameter["schema"]["type"], "uniqueItems": true})
                })
                .collect();
            let mut simple = json!({"responses": {"200": {"description": "OK"}}, "parameters": parameters});
            for key in ["x-kubernetes-action", "x-kubernetes-group-version-kind"] {
                simple[key] = operation[key].clone();
            }
            (method.clone(), simple)
        })
        .collect();
    Value::Object(item)
}

/// Members that mean the same in both versions.
const KEPT: &[&str] = &[
    "description",
    "format",
    "default",
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "required",
    "enum",
];

/// Nesting of schemas; those of the server's own table and of CRDs are bounded below it.
const DEPTH_MAX: usize = 64;

/// A schema in the words of version 2.
fn simple(schema: &Value, depth: usize) -> Value {
    let Some(fields) = schema.as_object().filter(|_| depth < DEPTH_MAX) else {
        return json!({});
    };
    let mut out = Map::new();
    let described = |out: &mut Map<String, Value>| {
        for (key, value) in fields {
            if key == "description" || key.starts_with("x-kubernetes-") {
                out.insert(key.clone(), value.clone());
            }
        }
    };
    if let Some(name) = reference(fields) {
        described(&mut out);
        out.insert("$ref".to_owned(), format!("#/definitions/{name}").into());
        return Value::Object(out);
    }
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
    let is_open = ["anyOf", "oneOf", "not"]
        .iter()
        .any(|key| fields.contains_key(*key))
        || fields.get("nullable") == Some(&Value::Bool(true))
        || fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if is_open || kind.is_empty() && !fields.contains_key("properties") {
        described(&mut out);
        // A resource whose schema is open is still an object of its kind.
        if fields.contains_key("x-kubernetes-group-version-kind") {
            out.insert("type".to_owned(), "object".into());
        }
        return Value::Object(out);
    }
    for (key, value) in fields {
        if KEPT.contains(&key.as_str()) || key.starts_with("x-kubernetes-") {
            out.insert(key.clone(), value.clone());
        }
    }
    let kind = if kind.is_empty() { "object" } else { kind };
    out.insert("type".to_owned(), kind.into());
    match kind {
        "array" => {
            let items = fields.get("items").map(|items| simple(items, depth + 1));
            out.insert("items".to_owned(), items.unwrap_or_else(|| json!({})));
        }
        "object" => {
            if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
                let properties: Map<String, Value> = properties
                    .iter()
                    .map(|(name, schema)| (name.clone(), simple(schema, depth + 1)))
                    .collect();
                out.insert("properties".to_owned(), properties.into());
            }
            if let Some(more @ Value::Object(_)) = fields.get("additionalProperties") {
                out.insert("additionalProperties".to_owned(), simple(more, depth + 1));
            }
        }
        _ => {}
    }
    Value::Object(out)
}

/// The name that a schema refers to, directly or as its only `allOf`.
fn reference(fields: &Map<String, Value>) -> Option<&str> {
    let direct = fields.get("$ref").and_then(Value::as_str);
    let wrapped = || match fields.get("allOf")?.as_array()?.as_slice() {
        [one] => one.get("$ref")?.as_str(),
        _ => None,
    };
    direct.or_else(wrapped)?.rsplit('/').next()
}

/// Opens references to what the document does not have: one such makes clients refuse all of it.
fn settle(schema: &mut Value, names: &std::collections::BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let is_lost = fields
                .get("$ref")
                .and_then(Value::as_str)
                .is_some_and(|to| !names.contains(to.trim_start_matches("#/definitions/")));
            if is_lost {
                fields.remove("$ref");
            }
            fields.values_mut().for_each(|value| settle(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
