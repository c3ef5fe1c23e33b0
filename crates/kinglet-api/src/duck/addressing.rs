//! References to what takes events, and the addresses it has.

use serde::{Deserialize, Serialize};

use super::Addressable;

/// A reference to an object by group, kind and name, and to one of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KReference {
    /// Kind of the object.
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
    /// Group of the object, whatever its version (feature `kreference-group`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Name of one of its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Where events go: an object, a URL, or an object and a path below its URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// The object.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<KReference>,
    /// An absolute URL, or one relative to the object's.
    #[serde(skip_serializing_if = "is_absent")]
    pub uri: Option<String>,
    /// PEM certificates that the server may be signed by.
    #[serde(rename = "CACerts", skip_serializing_if = "Option::is_none")]
    pub ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

impl Destination {
    /// A destination that is only a URL.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self {
            uri: Some(uri.into()),
            ..Self::default()
        }
    }

    /// A destination that is an object.
    pub fn reference(reference: KReference) -> Self {
        Self {
            reference: Some(reference),
            ..Self::default()
        }
    }

    /// Whether it names neither an object nor a URL.
    pub fn is_empty(&self) -> bool {
        self.reference.is_none() && is_absent(&self.uri)
    }
}

/// The addresses of an object, as its status has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressStatus {
    /// The one that is used where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
    /// All of them; the first is preferred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Addressable>,
}

/// An EventPolicy that applies to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AppliedEventPolicyRef {
    /// Group and version of the policy.
    pub api_version: String,
    /// Name of the policy.
    pub name: String,
}

/// An empty URL is none.
#[allow(clippy::ref_option, reason = "serde hands over the field itself")]
fn is_absent(uri: &Option<String>) -> bool {
    uri.as_deref().is_none_or(str::is_empty)
}
