//! Filters as they are written in Triggers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `spec.filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerFilter {
    /// Attributes that must have these values; the empty value means any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An element of `spec.filters`: one dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionsApiFilter {
    /// All must pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<SubscriptionsApiFilter>,
    /// One must pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<SubscriptionsApiFilter>,
    /// Must not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<SubscriptionsApiFilter>>,
    /// Attributes that have these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exact: BTreeMap<String, String>,
    /// Attributes that begin with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prefix: BTreeMap<String, String>,
    /// Attributes that end with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub suffix: BTreeMap<String, String>,
    /// An expression of CloudEvents SQL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cesql: String,
}

impl SubscriptionsApiFilter {
    /// How many dialects are set.
    pub(super) fn dialects(&self) -> usize {
        let Self {
            all,
            any,
            not,
            exact,
            prefix,
            suffix,
            cesql,
        } = self;
        [
            !all.is_empty(),
            !any.is_empty(),
            not.is_some(),
            !exact.is_empty(),
            !prefix.is_empty(),
            !suffix.is_empty(),
            !cesql.is_empty(),
        ]
        .into_iter()
        .filter(|set| *set)
        .count()
    }
}
