//! What admission refuses in filters (spec/eventing.md 4.2), in Knative's words, with paths below `spec`.

use std::collections::BTreeMap;

use super::compile::FILTER_DEPTH_MAX;
use super::spec::{SubscriptionsApiFilter, TriggerFilter};
use crate::cesql::Expression;

const NAME_RULE: &str =
    "Attribute name must start with a letter and can only contain lowercase alphanumeric";

/// A finding about a field, as Knative words it: `MESSAGE: PATH` and, on the next line, details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// The field, below `spec`; empty for what Knative says of no field.
    pub path: String,
    /// More about it, or nothing.
    pub details: String,
}

/// Checks both forms of a Trigger's filter.
pub fn validate(
    filter: Option<&TriggerFilter>,
    filters: &[SubscriptionsApiFilter],
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if let Some(filter) = filter {
        validate_attributes(&filter.attributes, "filter.attributes", &mut refusals);
    }
    list(filters, "filters", 0, &mut refusals);
    refusals
}

/// Checks names of attributes, of which each must be `[a-z][a-z0-9]*`.
pub fn validate_attributes(
    attributes: &BTreeMap<String, String>,
    path: &str,
    refusals: &mut Vec<Refusal>,
) {
    for name in attributes.keys().filter(|name| !is_attribute_name(name)) {
        refusals.push(Refusal {
            message: format!("invalid key name {name:?}"),
            path: format!("{path}[{name}]"),
            details: NAME_RULE.to_owned(),
        });
    }
}

fn is_attribute_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn list(filters: &[SubscriptionsApiFilter], path: &str, depth: usize, refusals: &mut Vec<Refusal>) {
    for (at, filter) in filters.iter().enumerate() {
        one(filter, &format!("{path}[{at}]"), depth, refusals);
    }
}

fn one(filter: &SubscriptionsApiFilter, path: &str, depth: usize, refusals: &mut Vec<Refusal>) {
    if depth >= FILTER_DEPTH_MAX {
        refusals.push(Refusal {
            message: format!("filters are nested deeper than {FILTER_DEPTH_MAX} levels"),
            path: path.to_owned(),
            details: String::new(),
        });
        return;
    }
    if filter.dialects() > 1 {
        refusals.push(Refusal {
            message: "multiple dialects found, filters can have only one dialect set".to_owned(),
            path: String::new(),
            details: String::new(),
        });
    }
    for (attributes, dialect) in [
        (&filter.exact, "exact"),
        (&filter.prefix, "prefix"),
        (&filter.suffix, "suffix"),
    ] {
        validate_attributes(attributes, &format!("{path}.{dialect}"), refusals);
    }
    list(&filter.all, &format!("{path}.all"), depth + 1, refusals);
    list(&filter.any, &format!("{path}.any"), depth + 1, refusals);
    if let Some(not) = &filter.not {
        one(not, &format!("{path}.not"), depth + 1, refusals);
    }
    if filter.cesql.is_empty() {
        return;
    }
    if let Err(error) = Expression::parse(&filter.cesql) {
        refusals.push(Refusal {
            message: format!("invalid value: {}", filter.cesql),
            path: format!("{path}.cesql"),
            details: error.to_string(),
        });
    }
}
