//! Placeholder.

pub mod apply;
mod fields;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod schema;
pub mod status;
