//! Filters as they are written in Triggers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// `spec.filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerFilter {
    /// Attributes that must have these values; the empty value means any.
    #[serde(
        default,
        deserialize_with = "null_or",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub attributes: BTreeMap<String, String>,
}

/// An element of `spec.filters`: one dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionsApiFilter {
    /// All must pass.
    #[serde(deserialize_with = "null_or", skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<SubscriptionsApiFilter>,
    /// One must pass.
    #[serde(deserialize_with = "null_or", skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<SubscriptionsApiFilter>,
    /// Must not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<SubscriptionsApiFilter>>,
    /// Attributes that have these values.
    #[serde(
        deserialize_with = "null_or",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exact: BTreeMap<String, String>,
    /// Attributes that begin with these values.
    #[serde(
        deserialize_with = "null_or",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub prefix: BTreeMap<String, String>,
    /// Attributes that end with these values.
    #[serde(
        deserialize_with = "null_or",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub suffix: BTreeMap<String, String>,
    /// An expression of CloudEvents SQL.
    #[serde(deserialize_with = "null_or", skip_serializing_if = "String::is_empty")]
    pub cesql: String,
}

/// `null` is the same as absent, as in Go.
fn null_or<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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
