//! ContainerSource: containers that send events to where they are told.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};

use crate::duck::{SourceSpec, SourceStatus};
use crate::kind::kind;

kind!(
    /// Containers that send events to where they are told.
    ContainerSource, "containersources", "sources.knative.dev", "v1", ContainerSourceSpec, ContainerSourceStatus
);

/// Spec of a ContainerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSourceSpec {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Its pods.
    pub template: PodTemplateSpec,
}

/// Status of a ContainerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSourceStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
}
