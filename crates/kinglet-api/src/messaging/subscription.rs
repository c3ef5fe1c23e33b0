//! Subscription: who gets the events of a channel, and where the replies go.

use serde::{Deserialize, Serialize};

use crate::duck::{AuthStatus, DeliverySpec, DeliveryStatus, Destination, KReference, Status};
use crate::kind::kind;

kind!(
    /// Who gets the events of a channel, and where the replies go.
    Subscription, "subscriptions", "messaging.knative.dev", "v1", SubscriptionSpec, SubscriptionStatus
);

/// Spec of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionSpec {
    /// The channel.
    pub channel: KReference,
    /// Who gets the events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<Destination>,
    /// Where the subscriber's replies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
    /// How events are delivered; as the channel says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Everything resolved. Written even if empty, as Knative does.
    pub physical_subscription: PhysicalSubscription,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

/// The resolved ends of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PhysicalSubscription {
    /// URL of the subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// Certificates that the subscriber's server may be signed by.
    #[serde(rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience of the subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// URL of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_uri: Option<String>,
    /// Certificates that the reply's server may be signed by.
    #[serde(rename = "replyCACerts", skip_serializing_if = "Option::is_none")]
    pub reply_ca_certs: Option<String>,
    /// OIDC audience of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_audience: Option<String>,
    /// The dead letter sink.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
}
