//! RequestReply: an answer to a request, out of events of a Broker.

use serde::{Deserialize, Serialize};

use crate::duck::{AddressStatus, AppliedEventPolicyRef, DeliverySpec, KReference, Status};
use crate::kind::kind;

kind!(
    /// Sends a request's event to a Broker and answers with the event that replies to it.
    RequestReply, "requestreplies", "eventing.knative.dev", "v1alpha1", RequestReplySpec, RequestReplyStatus
);

/// Spec of a RequestReply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestReplySpec {
    /// The Broker, in the same namespace.
    pub broker_ref: KReference,
    /// Extension attribute that a request gets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub correlation_attribute: String,
    /// Extension attribute by which a reply is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reply_attribute: String,
    /// Longest wait for the reply, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How replies are delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a RequestReply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestReplyStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where requests are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
    /// Replicas that should wait for replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Replicas that do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
}
