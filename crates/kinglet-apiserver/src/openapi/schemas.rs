//! Schemas by name, in the form kubectl expects: references into the document, how lists merge, which kind is which.

use serde_json::{Map, Value, json};

use super::{Builtin, Served};
use crate::fields::{Field, ListKind, Struct, table};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// `io.k8s.api.apps.v1.Deployment`, `dev.knative.serving.v1.Service`.
pub(super) fn name_of(group: &str, version: &str, kind: &Served<'_>) -> String {
    if kind.schema.is_none()
        && let Some(of) = table().kind(group, version, kind.kind)
    {
        return table().openapi_name(of);
    }
    let mut parts: Vec<&str> = group.split('.').filter(|part| !part.is_empty()).collect();
    parts.reverse();
    parts.extend([version, kind.kind]);
    parts.join(".")
}

/// Tells all schemas of a kind.
pub(super) fn write(
    group: &str,
    version: &str,
    kind: &Served<'_>,
    builtin: Builtin<'_>,
    visit: &mut dyn FnMut(&str, &Value),
) {
    let name = name_of(group, version, kind);
    let mark = json!([{"group": group, "kind": kind.kind, "version": version}]);
    if let Some(schema) = kind.schema {
        let mut schema = schema.clone();
        complete(&mut schema);
        schema["x-kubernetes-group-version-kind"] = mark;
        visit(&name, &schema);
        return;
    }
    let Some((root, definitions)) = builtin(group, version, kind.kind) else {
        visit(
            &name,
            &json!({"type": "object", "x-kubernetes-group-version-kind": mark}),
        );
        return;
    };
    for (defined, mut schema) in definitions {
        adapt(&mut schema, table().openapi_struct(&defined));
        if defined == root {
            schema["x-kubernetes-group-version-kind"] = mark.clone();
            visit(&name, &schema);
        } else {
            visit(&defined, &schema);
        }
    }
}

/// Tells the schemas of `metadata`.
pub(super) fn write_metadata(builtin: Builtin<'_>, visit: &mut dyn FnMut(&str, &Value)) {
    // Namespace reaches little else.
    let Some((root, definitions)) = builtin("", "v1", "Namespace") else {
        visit(
            OBJECT_META,
            &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        );
        return;
    };
    for (defined, mut schema) in definitions {
        if defined != root && defined.starts_with("io.k8s.apimachinery.") {
            adapt(&mut schema, table().openapi_struct(&defined));
            visit(&defined, &schema);
        }
    }
}

/// Gives a custom resource's schema what all objects have.
fn complete(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    fields.entry("type").or_insert_with(|| "object".into());
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    let Value::Object(properties) = properties else {
        return;
    };
    let described = |about: &str| json!({"type": "string", "description": about});
    let has_text = |value: Option<&Value>| value.is_some_and(|v| v.get("description").is_some());
    if !has_text(properties.get("apiVersion")) {
        properties.insert(
            "apiVersion".to_owned(),
            described("Version of the schema that this object is written in."),
        );
    }
    if !has_text(properties.get("kind")) {
        properties.insert("kind".to_owned(), described("Kind of this object."));
    }
    properties.insert(
        "metadata".to_owned(),
        json!({"description": "Standard object's metadata.", "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}]}),
    );
}

/// Turns references into those of the document, and tells how members merge.
fn adapt(schema: &mut Value, of: Option<&'static Struct>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.remove("$ref") {
                let name = reference.rsplit('/').next().unwrap_or("");
                let reference = json!({"$ref": format!("#/components/schemas/{name}")});
                if fields.is_empty() {
                    *schema = reference;
                    return;
                }
                // Members beside a reference are ignored by readers.
                fields.insert("allOf".to_owned(), json!([reference]));
            }
            if let (Some(of), Some(Value::Object(properties))) = (of, fields.get_mut("properties"))
            {
                for (name, property) in properties.iter_mut() {
                    if let (Some(field), Value::Object(property)) =
                        (table().field(of, name), property)
                    {
                        extend(property, field);
                    }
                }
            }
            if of.is_some_and(|of| of.atomic) {
                fields.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
            }
            for value in fields.values_mut() {
                adapt(value, None);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| adapt(item, None)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn extend(property: &mut Map<String, Value>, field: &'static Field) {
    let mut put = |name: &str, value: Value| property.insert(format!("x-kubernetes-{name}"), value);
    match (field.list, field.keys.as_ref()) {
        (ListKind::Set, _) => {
            put("list-type", "set".into());
        }
        (ListKind::Map, keys) => {
            put("list-type", "map".into());
            put(
                "list-map-keys",
                keys.iter().map(|key| Value::from(*key)).collect(),
            );
        }
        (ListKind::Atomic, _) => {}
    }
    match (field.patch_merge, field.retain_keys) {
        (true, true) => put("patch-strategy", "merge,retainKeys".into()),
        (true, false) => put("patch-strategy", "merge".into()),
        (false, true) => put("patch-strategy", "retainKeys".into()),
        (false, false) => None,
    };
    if let Some(key) = field.merge_key {
        put("patch-merge-key", key.into());
    }
    if field.atomic {
        put("map-type", "atomic".into());
    }
}
