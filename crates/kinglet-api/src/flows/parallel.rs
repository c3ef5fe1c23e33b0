//! Parallel: branches side by side, each with a filter.

use serde::{Deserialize, Serialize};

use super::{ChannelState, ObjectState};
use crate::duck::{
    Addressable, AppliedEventPolicyRef, AuthStatus, DeliverySpec, Destination, Status,
};
use crate::kind::kind;
use crate::messaging::ChannelTemplate;

kind!(
    /// Branches side by side, each with a filter.
    Parallel, "parallels", "flows.knative.dev", "v1", ParallelSpec, ParallelStatus
);

/// Spec of a Parallel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParallelSpec {
    /// The branches.
    pub branches: Vec<ParallelBranch>,
    /// Kind and spec of the channels before them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Where replies go of branches that say nothing about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
}

/// One branch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParallelBranch {
    /// Lets an event pass by replying with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Destination>,
    /// Who gets the events.
    pub subscriber: Destination,
    /// Where its replies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
    /// How events are delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a Parallel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParallelStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// The channel before the branches.
    pub ingress_channel_status: ChannelState,
    /// One entry per branch.
    pub branch_statuses: Option<Vec<BranchStatus>>,
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

/// What was made for one branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BranchStatus {
    /// Subscription of the filter.
    pub filter_subscription_status: ObjectState,
    /// Channel behind the filter.
    pub filter_channel_status: ChannelState,
    /// Subscription of the subscriber.
    pub subscriber_subscription_status: ObjectState,
}
