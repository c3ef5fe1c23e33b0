//! Cases in the words of the real server.

#![allow(
    clippy::needless_pass_by_value,
    reason = "builders of test objects read better by value"
)]

use serde_json::{Value, json};

use super::*;

fn schema(spec: Value) -> Schema {
    Schema::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

fn said(found: &[FieldError]) -> Vec<String> {
    found
        .iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect()
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": spec})
}

#[test]
fn values_are_judged_in_the_real_words() {
    let schema = schema(
        json!({"type": "object", "required": ["must"], "properties": {
            "count": {"type": "integer", "minimum": 1, "maximum": 10}, "must": {"type": "string"},
            "mode": {"type": "string", "enum": ["a", "b"]}, "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
            "port": {"x-kubernetes-int-or-string": true}, "none": {"type": "string", "nullable": true},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "boolean"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
        }}),
    );
    let cases = [
        (
            json!({"must": "", "count": "string"}),
            vec![
                "spec.count: Invalid value: \"string\": spec.count in body must be of type integer: \"string\"",
            ],
        ),
        (json!({}), vec!["spec.must: Required value"]),
        (
            json!({"must": "", "count": 0}),
            vec![
                "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
            ],
        ),
        (
            json!({"must": "", "mode": "c"}),
            vec!["spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            json!({"must": "", "name": "A"}),
            vec!["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"],
        ),
        (
            json!({"must": "", "name": "abcd"}),
            vec!["spec.name: Too long: may not be more than 3 bytes"],
        ),
        (
            json!({"must": "", "port": true}),
            vec![
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (json!({"must": "", "port": "http", "none": null}), vec![]),
        (
            json!({"must": null}),
            vec![
                "spec.must: Invalid value: \"null\": spec.must in body must be of type string: \"null\"",
            ],
        ),
        (
            json!({"must": "", "list": [true, 1]}),
            vec![
                "spec.list: Too many: 2: must have at most 1 item",
                "spec.list[1]: Invalid value: \"integer\": spec.list[1] in body must be of type boolean: \"integer\"",
            ],
        ),
        (
            json!({"must": "", "set": ["a", "a"]}),
            vec!["spec.set[1]: Duplicate value: \"a\""],
        ),
        (
            json!({"must": "", "map": [{"name": "a"}, {"name": "a"}]}),
            vec!["spec.map[1]: Duplicate value: {\"name\":\"a\"}"],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(
            said(&schema.validate(&object(spec.clone()), None)),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn unknown_fields_are_named_and_removed() {
    let schema = schema(json!({"type": "object", "properties": {
        "known": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {}}
        }},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}
    }}));
    let mut value = object(json!({
        "known": [{"a": "1", "b": 1}], "typo": 1, "free": {"x": {"y": 1}, "strict": {"z": 1}}, "labels": {"a": "b"},
        "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "nome": "y"}, "spec": {}}
    }));
    value["metadata"]["lables"] = json!({});
    let found = schema.prune(&mut value);
    assert_eq!(
        found,
        [
            "unknown field \"metadata.lables\"",
            "unknown field \"spec.embedded.metadata.nome\"",
            "unknown field \"spec.free.strict.z\"",
            "unknown field \"spec.known[0].b\"",
            "unknown field \"spec.typo\"",
        ]
    );
    assert_eq!(
        value["spec"],
        json!({"known": [{"a": "1"}], "free": {"x": {"y": 1}, "strict": {}}, "labels": {"a": "b"},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}})
    );
    assert!(schema.prune(&mut value).is_empty());
}

#[test]
fn defaults_fill_gaps_and_nulls() {
    let schema = schema(json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "integer", "default": 1}, "b": {"type": "object", "properties": {"c": {"type": "string", "default": "x"}}},
        "n": {"type": "string", "nullable": true, "default": "y"}, "gone": {"type": "string"},
        "each": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}}
    }}));
    let mut value = json!({});
    schema.default_in_place(&mut value);
    assert_eq!(value, json!({"spec": {"a": 1, "n": "y"}}));
    let mut value = json!({"spec": {"a": null, "b": {}, "n": null, "gone": null, "each": [{}]}});
    schema.default_in_place(&mut value);
    assert_eq!(
        value,
        json!({"spec": {"a": 1, "b": {"c": "x"}, "n": null, "each": [{"p": "TCP"}]}})
    );
}

#[test]
fn rules_are_enforced_and_see_the_old_object() {
    let schema = schema(json!({"type": "object", "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}
    }, "x-kubernetes-validations": [{"rule": "self.min <= self.max", "message": "min must not exceed max"}]}));
    let good = object(json!({"min": 1, "max": 2, "fixed": "a"}));
    assert_eq!(schema.validate(&good, None), []);
    assert_eq!(
        said(&schema.validate(&object(json!({"min": 3, "max": 2})), None)),
        ["spec: Invalid value: \"object\": min must not exceed max"]
    );
    let changed = object(json!({"min": 1, "max": 2, "fixed": "b"}));
    assert_eq!(
        said(&schema.validate(&changed, Some(&good))),
        ["spec.fixed: Invalid value: \"string\": is immutable"]
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_counted_and_passed_over() {
    let schema = schema(
        json!({"type": "object", "properties": {"a": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "cel.bind(x, self.a, x == x)"}]}),
    );
    let before = rules_not_enforced();
    let mut warnings = Vec::new();
    assert_eq!(
        schema.validate_with(&object(json!({"a": "b"})), None, &mut warnings),
        []
    );
    assert!(rules_not_enforced() > before);
    assert!(warnings[0].contains("was not enforced"), "{warnings:?}");
}

#[test]
fn a_broken_schema_is_named() {
    let error = Schema::compile(&json!({"type": "object", "properties": {"a": {"type": "text"}}}))
        .unwrap_err();
    assert!(
        error.starts_with("openAPIV3Schema.properties[a].type: Unsupported value: \"text\""),
        "{error}"
    );
    let error = Schema::compile(&json!({"type": "string", "pattern": "("})).unwrap_err();
    assert!(
        error.starts_with("openAPIV3Schema.pattern: Invalid value: \"(\""),
        "{error}"
    );
}

#[test]
fn fields_of_built_in_kinds_are_known() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"foo": 1,
        "template": {"spec": {"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 1}}, "imag": "x"}],
            "nodeSelector": {"any": "x"}}}}});
    assert_eq!(
        unknown_fields_builtin("apps", "v1", "Deployment", &deployment),
        [
            "unknown field \"spec.foo\"",
            "unknown field \"spec.template.spec.containers[0].imag\""
        ]
    );
}

#[test]
fn types_of_built_in_kinds_are_checked_as_go_does() {
    let check = |spec: Value| {
        check_types_builtin(
            "apps",
            "v1",
            "Deployment",
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}),
        )
    };
    let container = |fields: Value| json!({"template": {"spec": {"containers": [fields]}}});
    let cases = [
        (
            json!({"replicas": "1"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"template": []}),
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            json!({"template": {"spec": {"containers": {}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            container(json!({"imagePullPolicy": 1})),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            container(json!({"resources": {"limits": {"cpu": "abc"}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ];
    for (spec, message) in cases {
        assert_eq!(check(spec), Err(message.to_owned()));
    }
    assert_eq!(
        check(container(
            json!({"resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}}, "ports": null})
        )),
        Ok(())
    );
    let config_map = json!({"data": {"a": 1}});
    assert_eq!(
        check_types_builtin("", "v1", "ConfigMap", &config_map),
        Err(
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
                .to_owned()
        )
    );
    assert!(
        check_types_builtin("", "v1", "Secret", &json!({"data": {"a": "not base64!"}})).is_err()
    );
}
