//! Sequence: steps one after the other, each getting what the one before replied.

use serde::{Deserialize, Serialize};

use super::{ChannelState, ObjectState};
use crate::duck::{
    Addressable, AppliedEventPolicyRef, AuthStatus, DeliverySpec, Destination, Status,
};
use crate::kind::kind;
use crate::messaging::ChannelTemplate;

kind!(
    /// Steps one after the other, each getting what the one before replied.
    Sequence, "sequences", "flows.knative.dev", "v1", SequenceSpec, SequenceStatus
);

/// Spec of a Sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SequenceSpec {
    /// The steps, in their order.
    pub steps: Vec<SequenceStep>,
    /// Kind and spec of the channels between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Where the last reply goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SequenceStep {
    /// Who gets the events.
    #[serde(flatten)]
    pub destination: Destination,
    /// How they are delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a Sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SequenceStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// One entry per step.
    pub subscription_statuses: Option<Vec<ObjectState>>,
    /// One entry per step.
    pub channel_statuses: Option<Vec<ChannelState>>,
    /// Where events are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
}
