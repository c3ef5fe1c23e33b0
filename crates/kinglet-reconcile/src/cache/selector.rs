//! Selection of cached objects by their labels.

use std::collections::BTreeMap;

use super::head::Head;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kinglet_quantity::{Operator, Requirement};

/// Which labels an object must have.
#[derive(Clone, Debug, Default)]
pub struct Selector(kinglet_quantity::LabelSelector);

impl Selector {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the labels satisfy it. An empty selector matches everything; an unknown operator matches nothing.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.0
            .matches(|key| labels.and_then(|labels| labels.get(key).map(String::as_str)))
    }

    /// Whether the labels in `head` satisfy it.
    pub(crate) fn matches_head(&self, head: &Head) -> bool {
        self.0.matches(|key| head.label(key))
    }

    /// The labels that must have exactly one value.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.requirements().iter().filter_map(|required| {
            if let Operator::In(values) = &required.operator
                && let [value] = values.as_slice()
            {
                Some((required.key.as_str(), value.as_str()))
            } else {
                None
            }
        })
    }
}

impl From<&BTreeMap<String, String>> for Selector {
    fn from(pairs: &BTreeMap<String, String>) -> Self {
        Self(kinglet_quantity::LabelSelector::default().with_labels(pairs))
    }
}

impl From<&LabelSelector> for Selector {
    fn from(selector: &LabelSelector) -> Self {
        let labels = selector.match_labels.iter().flatten();
        let mut out = kinglet_quantity::LabelSelector::default().with_labels(labels);
        for wanted in selector.match_expressions.iter().flatten() {
            let values = wanted.values.as_deref().unwrap_or_default();
            out = out.with_expression(&wanted.key, &wanted.operator, values);
        }
        Self(out)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Selector {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let equal = pairs.map(|(key, value)| Requirement {
            key: key.to_owned(),
            operator: Operator::In(vec![value.to_owned()]),
        });
        Self(kinglet_quantity::LabelSelector::new(equal.into()))
    }
}
