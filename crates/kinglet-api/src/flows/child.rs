//! What a flow says about the channels and Subscriptions that it made.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::duck::{Condition, ConditionStatus, ObjectReference};

/// A Subscription that a flow made, and whether it is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectState {
    /// The Subscription.
    pub subscription: ObjectReference,
    /// Its `Ready`.
    pub ready: ChildCondition,
}

/// A channel that a flow made, and whether it is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelState {
    /// The channel.
    pub channel: ObjectReference,
    /// Its `Ready`.
    pub ready: ChildCondition,
}

/// A condition inside a status. A missing transition time is written as null, as Knative does there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChildCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The answer.
    pub status: ConditionStatus,
    /// `Info` for those that do not decide about `Ready`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// When anything else about it last changed.
    pub last_transition_time: Option<Time>,
    /// One word, for programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl From<Condition> for ChildCondition {
    fn from(condition: Condition) -> Self {
        Self {
            kind: condition.kind,
            status: condition.status,
            severity: condition.severity,
            last_transition_time: condition.last_transition_time,
            reason: condition.reason,
            message: condition.message,
        }
    }
}
