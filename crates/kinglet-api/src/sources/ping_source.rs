//! PingSource: an event at times of a schedule.

use serde::{Deserialize, Serialize};

use crate::duck::{SourceSpec, SourceStatus};
use crate::kind::kind;

kind!(
    /// An event at times of a schedule.
    PingSource, "pingsources", "sources.knative.dev", "v1", PingSourceSpec, PingSourceStatus
);

/// A PingSource of `sources.knative.dev/v1beta2`.
pub type PingSourceV1Beta2 = v1beta2::PingSource;

mod v1beta2 {
    use super::{PingSourceSpec, PingSourceStatus};
    use crate::kind::kind;

    kind!(
        /// An event at times of a schedule.
        PingSource, "pingsources", "sources.knative.dev", "v1beta2", PingSourceSpec, PingSourceStatus
    );
}

/// Spec of a PingSource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PingSourceSpec {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// When, in cron's notation ([`crate::cron`]).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    /// Time zone of the schedule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timezone: String,
    /// Content type of the data.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// The data.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// The data, where it is no text.
    #[serde(rename = "dataBase64", skip_serializing_if = "String::is_empty")]
    pub data_base64: String,
}

/// Status of a PingSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PingSourceStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
}
