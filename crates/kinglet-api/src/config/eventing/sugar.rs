//! `config-sugar`: which namespaces and Triggers get a Broker without asking.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::config::{Data, read};

/// `config-sugar`. An absent selector picks nothing, an empty one everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sugar {
    /// Namespaces that get a Broker `default`.
    pub namespace_selector: Option<LabelSelector>,
    /// Triggers whose Broker is made.
    pub trigger_selector: Option<LabelSelector>,
}

impl Sugar {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        Ok(Self {
            namespace_selector: selector(data, "namespace-selector")?,
            trigger_selector: selector(data, "trigger-selector")?,
        })
    }
}

fn selector(data: &Data, key: &str) -> Result<Option<LabelSelector>, String> {
    let text = read::text(data, &[key]).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let value = read::yaml(text)?;
    if value.is_null() {
        return Ok(None);
    }
    let selector: LabelSelector =
        serde_json::from_value(value.clone()).map_err(|error| format!("{key}: {error}"))?;
    crate::label_selector::problem(&value).map_or(Ok(Some(selector)), |problem| {
        Err(format!("{key}: {problem}"))
    })
}
