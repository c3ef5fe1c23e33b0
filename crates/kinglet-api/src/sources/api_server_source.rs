//! ApiServerSource: an event for each change of objects of the API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::duck::{SourceSpec, SourceStatus};
use crate::eventing::SubscriptionsApiFilter;
use crate::kind::kind;

kind!(
    /// An event for each change of objects of the API.
    ApiServerSource, "apiserversources", "sources.knative.dev", "v1", ApiServerSourceSpec, ApiServerSourceStatus
);

/// Spec of an ApiServerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServerSourceSpec {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Which objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ApiVersionKindSelector>,
    /// Only objects that one of this kind controls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<ApiVersionKind>,
    /// What an event holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whose rights it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Which namespaces; its own if absent, all if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which events (feature `new-apiserversource-filters`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
}

/// What an event holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// A reference to the object.
    #[default]
    Reference,
    /// The whole object.
    Resource,
}

/// Objects of a kind, by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiVersionKindSelector {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiVersionKind {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
}

/// Status of an ApiServerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiServerSourceStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// The namespaces that are watched.
    pub namespaces: Vec<String>,
}
