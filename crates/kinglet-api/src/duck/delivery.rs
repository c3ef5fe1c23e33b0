//! How events are delivered: retries, timeouts, dead letters.

use serde::{Deserialize, Serialize};

use super::addressing::Destination;

/// How events are delivered. Durations are ISO 8601 texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliverySpec {
    /// Where events go that could not be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink: Option<Destination>,
    /// How often delivery is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<i32>,
    /// Longest wait for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// `linear` or `exponential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_policy: Option<String>,
    /// What the waits between attempts are computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_delay: Option<String>,
    /// Longest wait that a `Retry-After` header may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_max: Option<String>,
    /// `json` (structured) or `binary`; as the event came if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// The dead letter sink as it was resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryStatus {
    /// Its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink_uri: Option<String>,
    /// Certificates that its server may be signed by.
    #[serde(
        rename = "deadLetterSinkCACerts",
        skip_serializing_if = "Option::is_none"
    )]
    pub dead_letter_sink_ca_certs: Option<String>,
    /// Its OIDC audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink_audience: Option<String>,
}
