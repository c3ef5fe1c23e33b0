//! Reads `application/vnd.kubernetes.protobuf` bodies of built-in kinds as the JSON they stand for.
//!
//! Flow: envelope (`k8s\0`, then `runtime.Unknown`) → kind → bytes walked along the field table → JSON as Go would write it.
//! Decode only: every answer of the server is JSON. Always: bounded depth, no panic whatever the bytes.

mod forms;
#[cfg(test)]
mod tests;
mod wire;

use serde_json::{Map, Value};

use crate::fields::{Field, Struct, Type, table};
use wire::{Payload, Reader};

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Does not start with `k8s\0`.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// Not a kind of ours.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    Kind {
        /// As sent.
        api_version: String,
        /// As sent.
        kind: String,
    },
    /// Broken bytes.
    #[error("{message} at {path}")]
    Wire {
        /// What is wrong.
        message: &'static str,
        /// In which message.
        path: String,
    },
}

const PREFIX: &[u8] = b"k8s\0";

/// Messages within messages. JSON schemas nest deepest of what there is; Kubernetes itself stops at 10 000 in JSON.
const DEPTH_MAX: usize = 64;

/// The object in an envelope.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    decode_at(bytes, 0)
}

fn decode_at(bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let body = bytes.strip_prefix(PREFIX).ok_or(ProtobufError::Prefix)?;
    let envelope = Envelope::read(body)?;
    if envelope.content_type.contains("json") {
        return serde_json::from_slice(envelope.raw)
            .map_err(|_| broken("invalid JSON", "runtime.Unknown.raw"));
    }
    let (group, version) = envelope
        .api_version
        .rsplit_once('/')
        .unwrap_or(("", &envelope.api_version));
    let Some(kind) = table().kind(group, version, &envelope.kind) else {
        return Err(ProtobufError::Kind {
            api_version: envelope.api_version,
            kind: envelope.kind,
        });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), envelope.api_version.clone().into());
    object.insert("kind".to_owned(), envelope.kind.clone().into());
    message(kind, envelope.raw, &mut object, depth + 1)?;
    Ok(Value::Object(object))
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    content_type: String,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        const PLACE: &str = "runtime.Unknown";
        let mut envelope = Self::default();
        let mut reader = Reader::new(bytes, PLACE);
        while let Some((number, payload)) = reader.next()? {
            match number {
                1 => {
                    let mut inner = Reader::new(payload.bytes(PLACE)?, "runtime.TypeMeta");
                    while let Some((number, payload)) = inner.next()? {
                        match number {
                            1 => {
                                envelope.api_version = payload.text("runtime.TypeMeta")?.to_owned()
                            }
                            2 => envelope.kind = payload.text("runtime.TypeMeta")?.to_owned(),
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = payload.bytes(PLACE)?,
                4 => envelope.content_type = payload.text(PLACE)?.to_owned(),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn broken(message: &'static str, path: &str) -> ProtobufError {
    ProtobufError::Wire {
        message,
        path: path.to_owned(),
    }
}

/// Reads one message into the JSON object that stands for it. Unknown numbers are passed over, as everywhere in protobuf.
fn message(
    of: &Struct,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(broken("messages nested too deep", of.id));
    }
    let mut reader = Reader::new(bytes, of.id);
    while let Some((number, payload)) = reader.next()? {
        if let Some(field) = of.fields.iter().find(|f| f.number == number) {
            read_field(of, field, payload, into, depth).map_err(|error| named(error, of, field))?;
        }
    }
    Ok(())
}

/// Says in which field of which message bytes are broken, once.
fn named(error: ProtobufError, of: &Struct, field: &Field) -> ProtobufError {
    match error {
        ProtobufError::Wire { message, path } if path.is_empty() => ProtobufError::Wire {
            message,
            path: format!("{}.{}", of.id, field.name),
        },
        other => other,
    }
}

fn read_field(
    of: &Struct,
    field: &Field,
    payload: Payload<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if field.name.is_empty() {
        let inlined = table()
            .structure(field.kind)
            .ok_or_else(|| broken("inlined field without a type", of.id))?;
        return message(inlined, payload.bytes("")?, into, depth + 1);
    }
    // A named map is a map on the wire too, a named list is a message around the list.
    let kind = match (field.kind, table().plain(field.kind)) {
        (Type::Named(_), Type::List(_)) => field.kind,
        (_, plain) => plain,
    };
    match kind {
        Type::List(at) => {
            let element = table().element(at);
            let slot = into
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = slot else {
                return Ok(());
            };
            if let (Payload::Bytes(packed), true) = (payload, is_varint(element)) {
                let mut reader = Reader::new(packed, "");
                while let Some(number) = reader.varint_or_end()? {
                    items.push(
                        value(element, Payload::Varint(number), depth)?.unwrap_or(Value::Null),
                    );
                }
            } else {
                items.push(value(element, payload, depth)?.unwrap_or(Value::Null));
            }
        }
        Type::Map(at) => {
            let (key, entry) = map_entry(table().element(at), payload.bytes("")?, depth)?;
            let slot = into
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = slot {
                entries.insert(key, entry);
            }
        }
        _ => {
            let read = value(field.kind, payload, depth)?;
            match read {
                Some(found) if field.pointer || !field.omit_empty || !is_zero(&found) => {
                    into.insert(field.name.to_owned(), found);
                }
                // The last one wins, also when it is empty.
                Some(_) | None => {
                    into.remove(field.name);
                }
            }
        }
    }
    Ok(())
}

fn map_entry(element: Type, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let mut key = String::new();
    let mut found = None;
    let mut reader = Reader::new(bytes, "");
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => key = payload.text("")?.to_owned(),
            2 => found = value(element, payload, depth)?,
            _ => {}
        }
    }
    let found = found.unwrap_or_else(|| match table().plain(element) {
        Type::Text | Type::Bytes => Value::String(String::new()),
        Type::Quantity => "0".into(),
        _ => Value::Null,
    });
    Ok((key, found))
}

/// One value; none where Go would write null.
fn value(kind: Type, payload: Payload<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(Some(match kind {
        Type::Text => payload.text("")?.into(),
        Type::Bool => (payload.varint("")? != 0).into(),
        // Negative numbers travel as ten bytes; the low half is the number.
        Type::Int32 => wire::signed32(payload.varint("")?).into(),
        Type::Int64 => payload.varint("")?.cast_signed().into(),
        Type::Float => {
            serde_json::Number::from_f64(payload.float("")?).map_or(Value::Null, Value::Number)
        }
        Type::Bytes => forms::base64(payload.bytes("")?),
        Type::Quantity => forms::quantity(payload.bytes("")?)?,
        Type::IntOrString => forms::int_or_string(payload.bytes("")?)?,
        Type::Time => return forms::time(payload.bytes("")?, false),
        Type::MicroTime => return forms::time(payload.bytes("")?, true),
        Type::Duration => forms::duration(payload.bytes("")?)?,
        Type::Raw | Type::FieldsV1 | Type::Any => return forms::raw(payload.bytes("")?, depth),
        Type::Struct(_) => {
            let Some(of) = table().structure(kind) else {
                return Ok(None);
            };
            let mut object = Map::new();
            message(of, payload.bytes("")?, &mut object, depth + 1)?;
            Value::Object(object)
        }
        Type::Named(_) => match table().plain(kind) {
            Type::List(at) => {
                let mut items = Vec::new();
                let mut reader = Reader::new(payload.bytes("")?, "");
                while let Some((number, payload)) = reader.next()? {
                    if number == 1 {
                        items.push(
                            value(table().element(at), payload, depth)?.unwrap_or(Value::Null),
                        );
                    }
                }
                Value::Array(items)
            }
            plain => return value(plain, payload, depth),
        },
        // Lists and maps directly within lists and maps do not exist in protobuf.
        Type::List(_) | Type::Map(_) => return Ok(None),
    }))
}

fn is_varint(kind: Type) -> bool {
    matches!(table().plain(kind), Type::Bool | Type::Int32 | Type::Int64)
}

/// What `omitempty` leaves out. Structs are never empty for Go.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    }
}
