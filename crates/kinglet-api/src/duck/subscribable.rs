//! What a channel has: subscribers, and what it says about each.

use serde::{Deserialize, Serialize};

use super::{
    AddressStatus, AppliedEventPolicyRef, AuthStatus, ConditionStatus, DeliverySpec,
    DeliveryStatus, Status,
};
use crate::kind::is_default;

/// Spec of every channel that events flow through, inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelableSpec {
    /// Who gets the events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberSpec>,
    /// Delivery of subscriptions that say nothing about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// One subscriber of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriberSpec {
    /// Name of the Subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UID of the Subscription.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Generation of the Subscription.
    #[serde(skip_serializing_if = "is_default")]
    pub generation: i64,
    /// Where events go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// Certificates that the subscriber's server may be signed by.
    #[serde(rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience of the subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// Where the subscriber's replies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_uri: Option<String>,
    /// Certificates that the reply's server may be signed by.
    #[serde(rename = "replyCACerts", skip_serializing_if = "Option::is_none")]
    pub reply_ca_certs: Option<String>,
    /// OIDC audience of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_audience: Option<String>,
    /// Delivery to this subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

/// What a channel says about one subscriber.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriberStatus {
    /// UID of the Subscription.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Generation of the Subscription that this is about.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// Whether it gets events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<ConditionStatus>,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

/// Status of every channel, inlined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelableStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where events are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// One entry per subscriber.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberStatus>,
    /// The dead letter sink.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
}
