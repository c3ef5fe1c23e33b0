//! IntegrationSink: events into systems outside, by name; here the log.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duck::{AddressStatus, AppliedEventPolicyRef, Status};
use crate::kind::{is_default, kind};

kind!(
    /// Events into systems outside, by name.
    IntegrationSink, "integrationsinks", "sinks.knative.dev", "v1alpha1", IntegrationSinkSpec, IntegrationSinkStatus
);

/// Spec of an IntegrationSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationSinkSpec {
    /// A service of AWS; admission refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Value>,
    /// A log of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
}

/// A log of events, and what of each it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Log {
    /// Name of the logger.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub logger_name: String,
    /// `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `OFF`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub level: String,
    /// Masks what looks like a password.
    #[serde(skip_serializing_if = "is_default")]
    pub log_mask: bool,
    /// Put before each entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub marker: String,
    /// Each part on a line of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub multiline: bool,
    /// Internal properties, too.
    #[serde(skip_serializing_if = "is_default")]
    pub show_all_properties: bool,
    /// The data.
    #[serde(skip_serializing_if = "is_default")]
    pub show_body: bool,
    /// Kind of the data.
    #[serde(skip_serializing_if = "is_default")]
    pub show_body_type: bool,
    /// How the event came.
    #[serde(skip_serializing_if = "is_default")]
    pub show_exchange_pattern: bool,
    /// The headers.
    #[serde(skip_serializing_if = "is_default")]
    pub show_headers: bool,
    /// The properties.
    #[serde(skip_serializing_if = "is_default")]
    pub show_properties: bool,
    /// Data that comes as a stream.
    #[serde(skip_serializing_if = "is_default")]
    pub show_streams: bool,
    /// Data of a stream that was kept.
    #[serde(skip_serializing_if = "is_default")]
    pub show_cached_streams: bool,
}

/// Status of an IntegrationSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationSinkStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where events are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
}
