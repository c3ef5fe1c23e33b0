//! Broker: takes events of a namespace and hands them to Triggers.

use serde::{Deserialize, Serialize};

use crate::duck::{
    AddressStatus, AppliedEventPolicyRef, DeliverySpec, DeliveryStatus, KReference, Status,
};
use crate::kind::kind;

kind!(
    /// Takes events and hands them to Triggers.
    Broker, "brokers", "eventing.knative.dev", "v1", BrokerSpec, BrokerStatus
);

/// Spec of a Broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerSpec {
    /// What its class is configured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<KReference>,
    /// Delivery of Triggers that say nothing about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Status of a Broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where events are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// The dead letter sink.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
}
