//! What merges how: one view over the field table, custom resources' schemas, and neither.

use std::collections::BTreeMap;

use serde_json::Value;

use super::path::{PathElement, json_text};
use crate::fields::{Field, ListKind, Struct, Type, table};
use crate::schema::Node;

/// The type of a place in an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// A built-in struct.
    Struct(&'static Struct),
    /// A built-in field's value.
    Field(&'static Field),
    /// A value in a built-in map or list.
    Type(Type),
    /// A custom resource's schema.
    Schema(&'a Node),
    /// The root of a custom resource (its metadata is Kubernetes').
    Resource(&'a Node),
    /// Not known: objects merge, lists do not.
    Deduced,
    /// Replaced as a whole whatever it is.
    Atomic,
}

/// How a value at a place merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Leaf,
    Map,
    Set,
    Keyed,
}

impl<'a> Shape<'a> {
    /// How such a value merges.
    pub(super) fn form(self, value: &Value) -> Form {
        match value {
            Value::Object(_) if self.merges_objects() => Form::Map,
            Value::Array(_) => match self.list() {
                ListKind::Set => Form::Set,
                ListKind::Map if !self.keys().is_empty() => Form::Keyed,
                ListKind::Map | ListKind::Atomic => Form::Leaf,
            },
            _ => Form::Leaf,
        }
    }

    fn merges_objects(self) -> bool {
        match self {
            Shape::Struct(of) => !of.atomic,
            Shape::Field(field) => !field.atomic && type_merges(field.kind),
            Shape::Type(kind) => type_merges(kind),
            Shape::Schema(node) => !node.map_atomic,
            Shape::Resource(_) | Shape::Deduced => true,
            Shape::Atomic => false,
        }
    }

    fn list(self) -> ListKind {
        match self {
            Shape::Field(field) => field.list,
            Shape::Schema(node) => node.list,
            Shape::Struct(_)
            | Shape::Type(_)
            | Shape::Resource(_)
            | Shape::Deduced
            | Shape::Atomic => ListKind::Atomic,
        }
    }

    fn keys(self) -> Vec<&'a str> {
        match self {
            Shape::Field(field) => field.keys.to_vec(),
            Shape::Schema(node) => node.list_keys.iter().map(AsRef::as_ref).collect(),
            Shape::Struct(_)
            | Shape::Type(_)
            | Shape::Resource(_)
            | Shape::Deduced
            | Shape::Atomic => Vec::new(),
        }
    }

    /// The type of a member, and whether the type declares it by name.
    pub(super) fn member(self, name: &str) -> (Shape<'a>, bool) {
        let declared = |of: &'static Struct| match table().field(of, name) {
            Some(field) => (Shape::Field(field), true),
            None => (Shape::Deduced, false),
        };
        let of_type = |kind: Type| match table().plain(kind) {
            Type::Map(at) => (Shape::Type(table().element(at)), false),
            plain @ Type::Struct(_) => table()
                .structure(plain)
                .map_or((Shape::Deduced, false), declared),
            _ => (Shape::Atomic, false),
        };
        match self {
            Shape::Struct(of) => declared(of),
            Shape::Field(field) => of_type(field.kind),
            Shape::Type(kind) => of_type(kind),
            Shape::Resource(_) if name == "metadata" => (metadata(), true),
            Shape::Resource(_) if matches!(name, "apiVersion" | "kind") => (Shape::Atomic, true),
            Shape::Schema(node)
                if node.embedded && name == "metadata" && !node.properties.contains_key(name) =>
            {
                (metadata(), true)
            }
            Shape::Schema(node) | Shape::Resource(node) => match node.properties.get(name) {
                Some(child) => (Shape::Schema(child), true),
                None => match &node.additional {
                    Some(child) => (Shape::Schema(child), false),
                    None => (Shape::Deduced, false),
                },
            },
            Shape::Deduced => (Shape::Deduced, false),
            Shape::Atomic => (Shape::Atomic, false),
        }
    }

    /// The type of a list's items.
    pub(super) fn item(self) -> Shape<'a> {
        match self {
            Shape::Field(&Field { kind, .. }) | Shape::Type(kind) => match table().plain(kind) {
                Type::List(at) => Shape::Type(table().element(at)),
                _ => Shape::Deduced,
            },
            Shape::Schema(node) => node.items.as_deref().map_or(Shape::Deduced, Shape::Schema),
            Shape::Struct(_) | Shape::Resource(_) | Shape::Deduced => Shape::Deduced,
            Shape::Atomic => Shape::Atomic,
        }
    }

    /// The step that leads to an item of a set or keyed list.
    pub(super) fn element(
        self,
        form: Form,
        at: usize,
        item: &Value,
    ) -> Result<PathElement, String> {
        if form == Form::Set {
            return match item {
                Value::Object(_) | Value::Array(_) | Value::Null => Err(
                    "associative list without keys has an element that's a map type, list or null"
                        .to_owned(),
                ),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    Ok(PathElement::Value(item.to_string()))
                }
            };
        }
        let Value::Object(fields) = item else {
            let what = if item.is_null() {
                "a null element"
            } else {
                "non-map elements"
            };
            return Err(format!(
                "element {at}: associative list with keys may not have {what}"
            ));
        };
        let mut key = BTreeMap::new();
        for name in self.keys() {
            let value = fields
                .get(name)
                .filter(|v| !v.is_null())
                .cloned()
                .or_else(|| self.item().default_of(name));
            let Some(value) = value else {
                return Err(format!(
                    "element {at}: associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
                ));
            };
            key.insert(name.to_owned(), value);
        }
        Ok(PathElement::Key(json_text(&key)))
    }

    /// As [`step`](Self::step), for objects that are already there: an item without its key is known by its place.
    pub(super) fn live_step(self, form: Form, at: usize, item: &Value) -> PathElement {
        self.element(form, at, item)
            .unwrap_or(PathElement::Index(at))
    }

    fn default_of(self, name: &str) -> Option<Value> {
        match self.member(name).0 {
            Shape::Field(field) => field.default_value(),
            Shape::Schema(node) => node.default.clone(),
            _ => None,
        }
    }
}

fn metadata() -> Shape<'static> {
    table()
        .named_struct("meta/v1.ObjectMeta")
        .map_or(Shape::Deduced, Shape::Struct)
}

fn type_merges(kind: Type) -> bool {
    let kind = table().plain(kind);
    match kind {
        Type::Map(_) => true,
        Type::Struct(_) => table().structure(kind).is_none_or(|of| !of.atomic),
        _ => false,
    }
}
