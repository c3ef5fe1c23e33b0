//! Structural schemas of custom resources: defaults, pruning, validation; and the same questions for built-in kinds.
//!
//! Flow: a CRD's `openAPIV3Schema` is compiled once -> every write is pruned, defaulted and validated with it.
//! Always: no IO; wording is apiextensions-apiserver's.

use serde_json::Value;

pub use crate::status::Cause as FieldError;

/// A compiled structural schema.
#[derive(Debug)]
pub struct Schema {
    root: Value,
}

impl Schema {
    /// Compiles an `openAPIV3Schema`; the error names what is wrong with it.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        Ok(Self { root: schema.clone() })
    }

    /// Fills in the defaults of the schema.
    pub fn default_in_place(&self, object: &mut Value) {
        let _ = (&self.root, object);
    }

    /// Removes what the schema does not know; answers `unknown field "spec.foo"` for each.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// What is wrong with an object; `old` is what it replaces (for transition rules).
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let _ = (object, old);
        Vec::new()
    }
}

/// Fields of a built-in kind's object that the kind does not have, as `unknown field "spec.foo"`. Unknown kinds have none.
pub fn unknown_fields_builtin(group: &str, version: &str, kind: &str, object: &Value) -> Vec<String> {
    let _ = (group, version, kind, object);
    Vec::new()
}

/// Removes the fields that [`unknown_fields_builtin`] names.
pub fn prune_builtin(group: &str, version: &str, kind: &str, object: &mut Value) -> Vec<String> {
    let _ = (group, version, kind, object);
    Vec::new()
}

/// Checks the JSON types of a built-in kind's object. The error is Go's, without the sentence around it:
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn check_types_builtin(group: &str, version: &str, kind: &str, object: &Value) -> Result<(), String> {
    let _ = (group, version, kind, object);
    Ok(())
}
