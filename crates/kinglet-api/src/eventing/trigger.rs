//! Trigger: events of a Broker that a subscriber wants.

use serde::{Deserialize, Serialize};

use super::{SubscriptionsApiFilter, TriggerFilter};
use crate::duck::{AuthStatus, DeliverySpec, DeliveryStatus, Destination, KReference, Status};
use crate::kind::kind;

kind!(
    /// Which events of a Broker go to a subscriber.
    Trigger, "triggers", "eventing.knative.dev", "v1", TriggerSpec, TriggerStatus
);

/// Spec of a Trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerSpec {
    /// Name of the Broker.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker: String,
    /// The Broker, maybe in another namespace (feature `cross-namespace-event-links`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_ref: Option<KReference>,
    /// Attributes that must be equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<TriggerFilter>,
    /// Filters that must all match; these take the place of `filter`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
    /// Where the events go.
    pub subscriber: Destination,
    /// How they are delivered; the Broker's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a Trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// The subscriber's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// Certificates that the subscriber's server may be signed by.
    #[serde(rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience of the subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// The dead letter sink.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}
