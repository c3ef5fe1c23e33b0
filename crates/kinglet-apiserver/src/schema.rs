//! Structural schemas of custom resources: defaults, pruning, validation; and the same questions for built-in kinds.
//!
//! Flow: a CRD's `openAPIV3Schema` is compiled once -> every write is pruned, defaulted and validated with it.
//! Always: no IO; wording is apiextensions-apiserver's; no panic whatever the object.

mod builtin;
mod defaults;
mod formats;
mod limits;
mod node;
mod prune;
mod rules;
#[cfg(test)]
mod tests;
mod validate;

use serde_json::Value;

pub use crate::status::Cause as FieldError;
pub(crate) use builtin::unknown_fields_of;
pub use builtin::{check_metadata, check_types_builtin, prune_builtin, unknown_fields_builtin};
pub(crate) use node::Node;
pub use rules::rules_not_enforced;

/// A compiled structural schema.
#[derive(Debug)]
pub struct Schema {
    root: Node,
    rules: Option<rules::Rules>,
}

impl Schema {
    /// Compiles an `openAPIV3Schema`; the error names what is wrong with it.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let root = Node::compile(schema, "openAPIV3Schema", 0)?;
        Ok(Self {
            root,
            rules: rules::Rules::compile(schema),
        })
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// Drops nulls where the schema allows none and fills in the defaults.
    pub fn default_in_place(&self, object: &mut Value) {
        defaults::fill(&self.root, object);
    }

    /// Removes what the schema does not know; answers `unknown field "spec.foo"` for each.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut found = Vec::new();
        prune::walk(
            &self.root,
            object,
            true,
            true,
            &mut String::new(),
            &mut found,
        );
        found
            .into_iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect()
    }

    /// Paths of what the schema does not know.
    pub(crate) fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let mut found = Vec::new();
        prune::walk(
            &self.root,
            &mut object.clone(),
            true,
            true,
            &mut String::new(),
            &mut found,
        );
        found
    }

    /// What is wrong with an object; `old` is what it replaces (for transition rules). Rules run when the shape is right.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.validate_with(object, old, &mut Vec::new())
    }

    /// As [`Schema::validate`]; says in `warnings` which rules could not be evaluated and were passed over.
    pub fn validate_with(
        &self,
        object: &Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Vec<FieldError> {
        let mut found = Vec::new();
        validate::walk(&self.root, object, true, "", &mut found);
        if found.is_empty()
            && let Some(rules) = &self.rules
        {
            rules.check(object, old, &mut found, warnings);
        }
        found
    }
}
