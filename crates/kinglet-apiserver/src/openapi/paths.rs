//! The operations of a kind: enough for clients to find its group, version and kind, and what PATCH takes.

use serde_json::{Map, Value, json};

use super::Served;

/// Path and operations of a kind.
pub(super) fn of(
    group: &str,
    version: &str,
    kind: &Served<'_>,
    schema: &str,
) -> Vec<(String, Value)> {
    let root = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let space = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{space}/{}", kind.plural);
    let about = About {
        group,
        version,
        kind,
        schema,
    };
    let mut found = vec![
        (
            collection.clone(),
            json!({
                "get": about.operation("list", &["fieldSelector", "labelSelector", "limit", "continue", "watch"]),
                "post": about.writing("post"),
            }),
        ),
        (
            format!("{collection}/{{name}}"),
            json!({
                "get": about.operation("get", &[]),
                "put": about.writing("put"),
                "patch": about.patching(),
                "delete": about.operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
            }),
        ),
    ];
    if kind.subresources.contains(&"status") {
        let status = json!({"get": about.operation("get", &[]), "put": about.writing("put"), "patch": about.patching()});
        found.push((format!("{collection}/{{name}}/status"), status));
    }
    if kind.namespaced {
        let everywhere = json!({"get": about.operation("list", &["fieldSelector", "labelSelector", "limit", "continue", "watch"])});
        found.push((format!("{root}/{}", kind.plural), everywhere));
    }
    found
}

struct About<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a Served<'a>,
    schema: &'a str,
}

impl About<'_> {
    fn operation(&self, action: &str, queries: &[&str]) -> Value {
        let parameters: Vec<Value> = queries
            .iter()
            .map(|name| {
                let of = match *name {
                    "watch" | "force" => "boolean",
                    "limit" | "gracePeriodSeconds" => "integer",
                    _ => "string",
                };
                json!({"name": name, "in": "query", "schema": {"type": of, "uniqueItems": true}})
            })
            .collect();
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": self.group, "kind": self.kind.kind, "version": self.version},
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {
                "$ref": format!("#/components/schemas/{}", self.schema)
            }}}}},
        });
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }

    fn writing(&self, action: &str) -> Value {
        let mut operation = self.operation(action, &["dryRun", "fieldManager", "fieldValidation"]);
        operation["requestBody"] = self.body(&["application/json", "application/yaml"]);
        operation
    }

    fn patching(&self) -> Value {
        let mut operation = self.operation(
            "patch",
            &["dryRun", "fieldManager", "fieldValidation", "force"],
        );
        let mut types = vec![
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        if self.kind.schema.is_none() {
            types.push("application/strategic-merge-patch+json");
        }
        let content: Map<String, Value> = types
            .into_iter()
            .map(|t| (t.to_owned(), json!({"schema": {"type": "object"}})))
            .collect();
        operation["requestBody"] = json!({"content": content});
        operation
    }

    fn body(&self, types: &[&str]) -> Value {
        let schema = json!({"schema": {"$ref": format!("#/components/schemas/{}", self.schema)}});
        let content: Map<String, Value> = types
            .iter()
            .map(|t| ((*t).to_owned(), schema.clone()))
            .collect();
        json!({"content": content})
    }
}
