//! Placeholder.

pub mod apply;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod schema;
pub mod status;
