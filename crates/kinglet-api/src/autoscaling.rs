//! `autoscaling.internal.knative.dev/v1alpha1`: PodAutoscaler, Metric.

use serde::{Deserialize, Serialize};

use crate::duck::{ObjectReference, Status};
use crate::kind::{is_default, kind};
use crate::networking::Protocol;

/// API group of these kinds.
pub const GROUP: &str = "autoscaling.internal.knative.dev";
/// Their only version.
pub const VERSION: &str = "v1alpha1";

kind!(
    /// How one Revision's Deployment is scaled.
    PodAutoscaler, "podautoscalers", "autoscaling.internal.knative.dev", "v1alpha1", PodAutoscalerSpec, PodAutoscalerStatus
);
kind!(
    /// What is measured for an autoscaler.
    Metric, "metrics", "autoscaling.internal.knative.dev", "v1alpha1", MetricSpec, MetricStatus
);

/// Whether any route leads to the Revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reachability {
    /// Not told.
    #[default]
    #[serde(rename = "")]
    Unknown,
    /// A route leads to it.
    Reachable,
    /// No route leads to it.
    Unreachable,
}

/// Spec of a PodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAutoscalerSpec {
    /// Requests at once per container; 0 means no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub container_concurrency: i64,
    /// The Deployment to scale.
    pub scale_target_ref: ObjectReference,
    /// Whether any route leads to it.
    #[serde(skip_serializing_if = "is_default")]
    pub reachability: Reachability,
    /// Protocol of the user container.
    pub protocol_type: Protocol,
}

/// Status of a PodAutoscaler. Both service names are always written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAutoscalerStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Kubernetes Service that reaches the Revision.
    pub service_name: String,
    /// Kubernetes Service that reaches only its pods.
    pub metrics_service_name: String,
    /// Pods wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_scale: Option<i32>,
    /// Pods ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_scale: Option<i32>,
}

/// Spec of a Metric. Windows are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSpec {
    /// Stable window in nanoseconds.
    pub stable_window: i64,
    /// Panic window in nanoseconds.
    pub panic_window: i64,
    /// Kubernetes Service whose pods are asked; empty means nobody is.
    pub scrape_target: String,
}

/// Status of a Metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
}
