//! What every Knative kind shares: the common status, conditions, addresses, object references.

mod addressing;
mod delivery;
mod source;
mod subscribable;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::kind::is_default;

pub use addressing::{AddressStatus, AppliedEventPolicyRef, Destination, KReference};
pub use delivery::{DeliverySpec, DeliveryStatus};
pub use source::{AuthStatus, CloudEventAttributes, CloudEventOverrides, SourceSpec, SourceStatus};
pub use subscribable::{ChannelableSpec, ChannelableStatus, SubscriberSpec, SubscriberStatus};

/// The status fields that every kind has, flattened into each status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The `metadata.generation` that the rest of the status talks about.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// Conditions, sorted by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Free annotations on the status.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Status {
    /// The condition of a type, by name.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// Whether `Ready` is True, for exactly this generation of the spec.
    pub fn is_ready(&self, generation: i64) -> bool {
        self.observed_generation == generation
            && self.condition("Ready").is_some_and(Condition::is_true)
    }

    /// Whether `Ready` is False, for exactly this generation of the spec.
    pub fn is_failed(&self, generation: i64) -> bool {
        self.observed_generation == generation
            && self.condition("Ready").is_some_and(Condition::is_false)
    }
}

/// Answer of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    #[default]
    Unknown,
}

impl ConditionStatus {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition of a status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Its type, such as `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The answer.
    pub status: ConditionStatus,
    /// Empty for those that decide about `Ready`, `Info` for the others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// When anything else about it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word, for programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    /// Status is True.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }

    /// Status is False.
    pub fn is_false(&self) -> bool {
        self.status == ConditionStatus::False
    }

    /// Status is Unknown.
    pub fn is_unknown(&self) -> bool {
        self.status == ConditionStatus::Unknown
    }

    /// Equal in everything but the transition time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            kind,
            status,
            severity,
            last_transition_time: _,
            reason,
            message,
        } = self;
        *kind == other.kind
            && *status == other.status
            && *severity == other.severity
            && *reason == other.reason
            && *message == other.message
    }
}

/// Where something can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addressable {
    /// Name of the address among several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// PEM certificates that the URL's server may be signed by.
    #[serde(rename = "CACerts", skip_serializing_if = "Option::is_none")]
    pub ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

impl Addressable {
    /// An address that is only a URL.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            url: Some(url.into()),
            ..Self::default()
        }
    }
}

/// A reference to an object by API version, kind and name (namespace where it differs).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Kind of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Namespace; empty means that of the referrer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group and version of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
}
