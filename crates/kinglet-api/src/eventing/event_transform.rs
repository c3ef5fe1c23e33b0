//! EventTransform: an event in, another event out.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use serde::{Deserialize, Serialize};

use crate::duck::{AddressStatus, AppliedEventPolicyRef, Destination, SourceStatus};
use crate::kind::kind;

kind!(
    /// Turns events into others by an expression.
    EventTransform, "eventtransforms", "eventing.knative.dev", "v1alpha1", EventTransformSpec, EventTransformStatus
);

/// Spec of an EventTransform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTransformSpec {
    /// Where the new event goes; back to the sender if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<Destination>,
    /// What becomes of the sink's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplySpec>,
    /// The transformation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<JsonataTransformation>,
}

/// What becomes of the sink's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplySpec {
    /// Transformation of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<JsonataTransformation>,
    /// The answer is thrown away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<bool>,
}

/// A transformation by a JSONata expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonataTransformation {
    /// The expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// Status of an EventTransform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTransformStatus {
    /// As of every source.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// Where events are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
    /// What runs the expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<JsonataStatus>,
}

/// What runs a JSONata expression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonataStatus {
    /// Status of its Deployment.
    pub deployment: DeploymentStatus,
}
