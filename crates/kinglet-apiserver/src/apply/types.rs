//! How the fields of a kind merge, and which of them a write through a subresource may own.

use serde_json::{Value, json};

use super::path::Set;
use super::shape::Shape;
use super::versions::Versions;
use super::zero;
use crate::fields::{Struct, table};
use crate::schema::Schema;

/// How the fields of a kind merge.
#[derive(Clone, Copy, Debug)]
pub struct TypeInfo<'a> {
    pub(super) of: Kind<'a>,
    pub(super) status_apart: bool,
    /// The other versions in which managers may have written.
    pub(super) versions: Option<&'a dyn Versions>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'a> {
    Builtin(&'static Struct),
    Custom(&'a Schema),
    Untyped,
}

impl<'a> TypeInfo<'a> {
    /// A built-in kind; `None` if it is not one.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<TypeInfo<'static>> {
        table().kind(group, version, kind).map(|of| TypeInfo {
            of: Kind::Builtin(of),
            status_apart: false,
            versions: None,
        })
    }

    /// A custom resource.
    pub fn custom(schema: &'a Schema) -> Self {
        Self {
            of: Kind::Custom(schema),
            status_apart: false,
            versions: None,
        }
    }

    /// Anything else: objects merge by field, lists are atomic.
    pub fn untyped() -> Self {
        Self {
            of: Kind::Untyped,
            status_apart: false,
            versions: None,
        }
    }

    /// Says that the kind has a `status` subresource: writes elsewhere do not own `status`, writes there own nothing of `spec`.
    #[must_use]
    pub fn with_status_subresource(self, has: bool) -> Self {
        Self {
            status_apart: has,
            ..self
        }
    }

    pub(super) fn shape(&self) -> Shape<'a> {
        match self.of {
            Kind::Builtin(of) => Shape::Struct(of),
            Kind::Custom(schema) => Shape::Resource(schema.root()),
            Kind::Untyped => Shape::Deduced,
        }
    }

    /// Returns the object that a first write is compared with: in Go, a struct whose nested structs are all there.
    pub(super) fn blank(&self) -> Value {
        match self.of {
            Kind::Builtin(of) => zero::object(of),
            Kind::Custom(_) | Kind::Untyped => json!({}),
        }
    }

    /// Returns the fields of a set that a write through this subresource may own.
    pub(super) fn owned(&self, set: &Set, subresource: &str) -> Set {
        match (subresource, self.of) {
            ("status", Kind::Custom(_)) => set.split(&["status"], true),
            ("status", _) => set.split(&["spec"], false),
            _ if self.status_apart => set.split(&["status"], false),
            _ => set.clone(),
        }
    }
}
