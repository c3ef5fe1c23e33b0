//! The protobuf form of a version 2 document: messages and numbers of `openapi.v2` in github.com/google/gnostic-models, `openapiv2/OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: Option<&Value>) {
        if let Some(text) = value
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
        {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: Option<&Value>) {
        if value == Some(&Value::Bool(true)) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u64, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_u64).filter(|number| *number > 0) {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    fn number(&mut self, field: u64, value: Option<&Value>) {
        if let Some(number) = value
            .and_then(Value::as_f64)
            .filter(|number| *number != 0.0)
        {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u64, inner: &Self) {
        self.bytes(field, &inner.0);
    }

    /// `NamedX {string name = 1; X value = 2}`.
    fn named(&mut self, field: u64, name: &str, value: &Self) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, &pair);
    }

    /// The `x-` members of a map.
    fn extensions(&mut self, field: u64, of: &Map<String, Value>) {
        for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, &any(value));
        }
    }
}

/// `Any {google.protobuf.Any value = 1; string yaml = 2}`; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out
}

fn members<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    of.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// `Document`.
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    let mut info = Message::default();
    info.text(1, document["info"].get("title"));
    info.text(2, document["info"].get("version"));
    out.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in members(document, "paths") {
        paths.named(2, path, &path_item(item));
    }
    out.message(8, &paths);
    let mut definitions = Message::default();
    for (name, schema) in members(document, "definitions") {
        definitions.named(1, name, &self::schema(schema));
    }
    out.message(9, &definitions);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (method, field) in [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("patch", 8),
    ] {
        if let Some(found) = item.get(method) {
            out.message(field, &operation(found));
        }
    }
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        // ParametersItem.parameter > Parameter.non_body_parameter > NonBodyParameter.query_parameter_sub_schema.
        let mut query = Message::default();
        query.text(2, parameter.get("in"));
        query.text(4, parameter.get("name"));
        query.text(6, parameter.get("type"));
        let mut wrapped = query;
        for field in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(field, &wrapped);
            wrapped = outer;
        }
        out.message(8, &wrapped);
    }
    let mut responses = Message::default();
    for (code, response) in members(operation, "responses") {
        // ResponseValue.response > Response.description.
        let mut inner = Message::default();
        inner.text(1, response.get("description"));
        let mut value = Message::default();
        value.message(1, &inner);
        responses.named(1, code, &value);
    }
    out.message(9, &responses);
    if let Some(fields) = operation.as_object() {
        out.extensions(13, fields);
    }
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let field = |name: &str| value.get(name);
    out.text(1, field("$ref"));
    out.text(2, field("format"));
    out.text(4, field("description"));
    if let Some(default) = field("default") {
        out.message(5, &any(default));
    }
    out.number(7, field("maximum"));
    out.flag(8, field("exclusiveMaximum"));
    out.number(9, field("minimum"));
    out.flag(10, field("exclusiveMinimum"));
    out.integer(11, field("maxLength"));
    out.integer(12, field("minLength"));
    out.text(13, field("pattern"));
    out.integer(14, field("maxItems"));
    out.integer(15, field("minItems"));
    for name in field("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.text(19, Some(name));
    }
    for value in field("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.message(20, &any(value));
    }
    if let Some(more) = field("additionalProperties") {
        let mut item = Message::default();
        item.message(1, &schema(more));
        out.message(21, &item);
    }
    if field("type").is_some() {
        let mut item = Message::default();
        item.text(1, field("type"));
        out.message(22, &item);
    }
    if let Some(items) = field("items") {
        let mut item = Message::default();
        item.message(1, &schema(items));
        out.message(23, &item);
    }
    if field("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in members(value, "properties") {
            properties.named(1, name, &schema(property));
        }
        out.message(25, &properties);
    }
    if let Some(fields) = value.as_object() {
        out.extensions(31, fields);
    }
    out
}
