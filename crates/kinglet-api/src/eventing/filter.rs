//! A filter of the Subscriptions API: one dialect, maybe nested.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A filter: one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionsApiFilter {
    /// Every one of these matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<SubscriptionsApiFilter>,
    /// At least one of these matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<SubscriptionsApiFilter>,
    /// This one does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<SubscriptionsApiFilter>>,
    /// Attributes that are equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exact: BTreeMap<String, String>,
    /// Attributes that begin so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prefix: BTreeMap<String, String>,
    /// Attributes that end so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub suffix: BTreeMap<String, String>,
    /// An expression of CloudEvents SQL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cesql: String,
}
