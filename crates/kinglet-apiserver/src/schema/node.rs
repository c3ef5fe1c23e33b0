//! The compiled form of a schema: only what a write needs, without descriptions.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::formats::Format;
use crate::fields::ListKind;

/// Deepest nesting of schemas. Real CRDs that embed a PodSpec reach about 25.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    /// Reads `type`; none where the schema leaves it open.
    fn read(schema: &Map<String, Value>, place: &str) -> Result<Option<Self>, String> {
        Ok(Some(match schema.get("type").and_then(Value::as_str) {
            None | Some("") => return Ok(None),
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::Text,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            Some(other) => {
                return Err(format!(
                    "{place}.type: Unsupported value: \"{other}\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
                ));
            }
        }))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::Text => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
        }
    }
}

/// A place in an object.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<Kind>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) properties: BTreeMap<Box<str>, Node>,
    pub(crate) additional: Option<Box<Node>>,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) required: Box<[Box<str>]>,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListKind,
    pub(crate) list_keys: Box<[Box<str>]>,
    pub(crate) map_atomic: bool,
    pub(crate) limits: Option<Box<Limits>>,
    /// Whether there is a default here or below; without one the object is not walked.
    pub(crate) has_defaults: bool,
}

/// The limits of a value beyond its type.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) format: Option<Format>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) unique: bool,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
}

impl Node {
    pub(super) fn compile(schema: &Value, place: &str, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("{place}: schema nested deeper than {DEPTH_MAX}"));
        }
        let fields = schema
            .as_object()
            .ok_or_else(|| format!("{place}: must be an object"))?;
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let texts = |name: &str| -> Box<[Box<str>]> {
            fields
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(Box::from)
                .collect()
        };
        let mut node = Node {
            kind: Kind::read(fields, place)?,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            required: texts("required"),
            default: fields.get("default").cloned(),
            list: match text("x-kubernetes-list-type") {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map,
                _ => ListKind::Atomic,
            },
            list_keys: texts("x-kubernetes-list-map-keys"),
            map_atomic: text("x-kubernetes-map-type") == Some("atomic"),
            ..Node::default()
        };
        node.compile_children(fields, place, depth)?;
        if node.list == ListKind::Map && node.list_keys.is_empty() {
            return Err(format!(
                "{place}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            ));
        }
        let limits = Limits::compile(schema, place, depth)?;
        node.limits = limits.map(Box::new);
        node.has_defaults = node.default.is_some()
            || node.properties.values().any(|n| n.has_defaults)
            || node
                .additional
                .iter()
                .chain(&node.items)
                .any(|n| n.has_defaults);
        Ok(node)
    }

    /// Compiles the schemas of fields and items.
    fn compile_children(
        &mut self,
        fields: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        let below = |name: &str, schema: &Value| {
            Node::compile(schema, &format!("{place}.{name}"), depth + 1)
        };
        if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
            for (name, schema) in properties {
                self.properties.insert(
                    name.as_str().into(),
                    below(&format!("properties[{name}]"), schema)?,
                );
            }
        }
        match fields.get("additionalProperties") {
            None | Some(Value::Bool(false) | Value::Null) => {}
            Some(Value::Bool(true)) => {
                self.additional = Some(Box::new(Node {
                    preserve: true,
                    nullable: true,
                    ..Node::default()
                }))
            }
            Some(schema) => {
                self.additional = Some(Box::new(below("additionalProperties", schema)?))
            }
        }
        if let Some(schema) = fields.get("items") {
            self.items = Some(Box::new(below("items", schema)?));
        }
        Ok(())
    }
}

/// The keywords of a schema that limit a value.
const LIMITS: &[&str] = &[
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

impl Limits {
    fn compile(schema: &Value, place: &str, depth: usize) -> Result<Option<Self>, String> {
        if !LIMITS.iter().any(|name| schema.get(name).is_some()) {
            return Ok(None);
        }
        let number = |name: &str| schema.get(name).and_then(Value::as_u64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let bound = |name: &str, exclusive: &str| {
            let limit = schema.get(name).and_then(Value::as_f64);
            limit.map(|limit| (limit, flag(exclusive)))
        };
        let each = |name: &str| compile_each(schema, name, place, depth);
        Ok(Some(Self {
            format: schema
                .get("format")
                .and_then(Value::as_str)
                .and_then(Format::named),
            pattern: pattern(schema, place)?,
            allowed: schema
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema.get("multipleOf").and_then(Value::as_f64),
            min_length: number("minLength"),
            max_length: number("maxLength"),
            min_items: number("minItems"),
            max_items: number("maxItems"),
            min_properties: number("minProperties"),
            max_properties: number("maxProperties"),
            unique: flag("uniqueItems"),
            all_of: each("allOf")?,
            any_of: each("anyOf")?,
            one_of: each("oneOf")?,
            not: match schema.get("not") {
                Some(schema) => Some(Box::new(Node::compile(
                    schema,
                    &format!("{place}.not"),
                    depth + 1,
                )?)),
                None => None,
            },
        }))
    }
}

/// Compiles the schemas of `allOf`, `anyOf` or `oneOf`.
fn compile_each(
    schema: &Value,
    name: &str,
    place: &str,
    depth: usize,
) -> Result<Vec<Node>, String> {
    let schemas = schema.get(name).and_then(Value::as_array);
    schemas
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, schema)| Node::compile(schema, &format!("{place}.{name}[{at}]"), depth + 1))
        .collect()
}

fn pattern(schema: &Value, place: &str) -> Result<Option<Regex>, String> {
    match schema.get("pattern").and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) => Regex::new(text)
            .map(Some)
            .map_err(|error| format!("{place}.pattern: Invalid value: {text:?}: {error}")),
    }
}
