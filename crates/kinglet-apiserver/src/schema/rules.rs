//! CEL rules (`x-kubernetes-validations`) of custom resources.
//!
//! A rule that says no is enforced. A rule that the engine cannot evaluate is logged, counted, told the client in a Warning and passed over, so that a CRD which
//! works on Kubernetes works here.

use std::sync::atomic::{AtomicU64, Ordering};

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::FieldError;

static NOT_ENFORCED: AtomicU64 = AtomicU64::new(0);

/// How many times a rule was passed over since the process started.
pub fn rules_not_enforced() -> u64 {
    NOT_ENFORCED.load(Ordering::Relaxed)
}

/// All rules of a schema.
pub(super) struct Rules {
    schema: CompiledSchema,
    validator: Validator,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}

impl Rules {
    /// None if the schema has no rules: then nothing is kept.
    pub(super) fn compile(schema: &Value) -> Option<Self> {
        has_rules(schema).then(|| Self {
            schema: compile_schema(schema),
            validator: Validator::new(),
        })
    }

    pub(super) fn check(
        &self,
        object: &Value,
        old: Option<&Value>,
        found: &mut Vec<FieldError>,
        warnings: &mut Vec<String>,
    ) {
        let Err(errors) = self.validator.validate_compiled(&self.schema, object, old) else {
            return;
        };
        for error in errors {
            match error.kind {
                ErrorKind::ValidationFailure => found.push(refused(&error, object)),
                _ => {
                    NOT_ENFORCED.fetch_add(1, Ordering::Relaxed);
                    warnings.push(format!(
                        "{}: the rule {:?} cannot be evaluated by Kinglet and was not enforced: {}",
                        error.field_path.trim_start_matches('.'),
                        error.rule,
                        error.message
                    ));
                    tracing::warn!(
                        rule = error.rule,
                        field = error.field_path,
                        detail = error.message,
                        "rule not enforced"
                    );
                }
            }
        }
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            (name == "x-kubernetes-validations" && value.is_array()) || has_rules(value)
        }),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn refused(error: &ValidationError, object: &Value) -> FieldError {
    let path = if error.field_path.is_empty() {
        "<nil>"
    } else {
        error.field_path.trim_start_matches('.')
    };
    match error.reason.as_deref() {
        Some("FieldValueRequired") => FieldError::required(path, &error.message),
        Some("FieldValueForbidden") => FieldError::forbidden(path, &error.message),
        Some("FieldValueDuplicate") => FieldError::duplicate(path, &type_at(object, path).into()),
        _ => FieldError::invalid(path, &type_at(object, path).into(), &error.message),
    }
}

/// The type of what a path leads to: the real server shows that instead of the value.
fn type_at(object: &Value, path: &str) -> &'static str {
    let mut at = object;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let next = match at {
            Value::Array(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index)),
            other => other.get(part),
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    match at {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
