//! What a built-in object is in Go before anything is set: structs that are not pointers are there, and fields that are always written.
//!
//! It decides which fields a creation adds: `f:spec` is not owned as such, since it was there.

use serde_json::{Map, Value};

use crate::fields::{Struct, Type, table};

/// The JSON of the zero value.
pub(super) fn object(of: &'static Struct) -> Value {
    let mut out = Map::new();
    table().each_field(of, &mut |field| {
        let always = !field.omit_empty;
        let value = match table().plain(field.kind) {
            _ if field.pointer => always.then_some(Value::Null),
            kind @ Type::Struct(_) => table().structure(kind).map(object),
            Type::IntOrString => Some(0.into()),
            Type::Quantity => Some("0".into()),
            Type::Duration => Some("0s".into()),
            Type::Time | Type::MicroTime | Type::Raw | Type::FieldsV1 | Type::Any => {
                Some(Value::Null)
            }
            Type::List(_) | Type::Map(_) | Type::Bytes => always.then_some(Value::Null),
            Type::Text => always.then(|| "".into()),
            Type::Bool => always.then(|| false.into()),
            Type::Int32 | Type::Int64 | Type::Float => always.then(|| 0.into()),
            Type::Named(_) => None,
        };
        if let Some(value) = value {
            out.insert(field.name.to_owned(), value);
        }
    });
    Value::Object(out)
}
