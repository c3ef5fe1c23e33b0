//! SinkBinding: tells the pods of a workload where to send.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::duck::{SourceSpec, SourceStatus};
use crate::kind::kind;

kind!(
    /// Tells the pods of a workload where to send.
    SinkBinding, "sinkbindings", "sources.knative.dev", "v1", SinkBindingSpec, SinkBindingStatus
);

/// Spec of a SinkBinding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkBindingSpec {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// The workload.
    pub subject: Subject,
}

/// An object, or objects of a kind with labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// Group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Namespace: that of the SinkBinding.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name, if it is one object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels, if it is several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Status of a SinkBinding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SinkBindingStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// Secret with the token that the pods send with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_token_secret_name: Option<String>,
}
