//! IntegrationSource: events out of systems outside, by name; here the timer.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duck::{SourceSpec, SourceStatus};
use crate::kind::{is_default, kind};

kind!(
    /// Events out of systems outside, by name.
    IntegrationSource, "integrationsources", "sources.knative.dev", "v1alpha1", IntegrationSourceSpec, IntegrationSourceStatus
);

/// Spec of an IntegrationSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationSourceSpec {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplateSpec>,
    /// A service of AWS; admission refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Value>,
    /// The same message again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
}

/// The same message again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timer {
    /// Milliseconds between two events.
    pub period: i64,
    /// The data.
    pub message: String,
    /// Its content type.
    pub content_type: String,
    /// How many events; 0 means no end.
    #[serde(skip_serializing_if = "is_default")]
    pub repeat_count: i64,
}

/// Status of an IntegrationSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrationSourceStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
}
