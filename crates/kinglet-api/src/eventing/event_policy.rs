//! EventPolicy: who may send to what.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use super::SubscriptionsApiFilter;
use crate::duck::Status;
use crate::kind::kind;

kind!(
    /// Who may send events to what.
    EventPolicy, "eventpolicies", "eventing.knative.dev", "v1alpha1", EventPolicySpec, EventPolicyStatus
);

/// Spec of an EventPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventPolicySpec {
    /// What it guards; empty means everything addressable of the namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<EventPolicyTo>,
    /// Who may send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<EventPolicyFrom>,
    /// Which events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
}

/// What a policy guards: an object, or objects by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventPolicyTo {
    /// One object.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<EventPolicyToReference>,
    /// Objects of a kind with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<EventPolicySelector>,
}

/// An object in the policy's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventPolicyToReference {
    /// Group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Objects of a kind with labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventPolicySelector {
    /// The labels.
    #[serde(flatten)]
    pub labels: LabelSelector,
    /// Group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// Who may send: an object that sends, or a subject by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventPolicyFrom {
    /// An object with a service account in its status.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<EventPolicyFromReference>,
    /// A subject; `*` at its end stands for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
}

/// An object that sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventPolicyFromReference {
    /// Group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Status of an EventPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventPolicyStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// The subjects that may send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}
