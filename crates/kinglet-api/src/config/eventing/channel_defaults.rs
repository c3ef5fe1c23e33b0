//! Which kind of channel is made: `default-ch-webhook`, and the ConfigMaps that Brokers are configured with.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{Data, read};
use crate::messaging::ChannelTemplate;

const KEY: &str = "default-ch-config";

/// `default-ch-webhook`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelDefaults {
    cluster_default: Option<ChannelTemplate>,
    #[serde(default)]
    namespace_defaults: BTreeMap<String, ChannelTemplate>,
}

impl Default for ChannelDefaults {
    /// As shipped: an InMemoryChannel.
    fn default() -> Self {
        Self {
            cluster_default: Some(ChannelTemplate {
                kind: "InMemoryChannel".to_owned(),
                api_version: "messaging.knative.dev/v1".to_owned(),
                spec: None,
            }),
            namespace_defaults: BTreeMap::new(),
        }
    }
}

impl ChannelDefaults {
    /// Reads the map. Without the key nothing is defaulted.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let text = read::text(data, &[KEY]).unwrap_or_default();
        if text.is_empty() {
            return Ok(Self {
                cluster_default: None,
                namespace_defaults: BTreeMap::new(),
            });
        }
        serde_json::from_value(read::yaml(text)?).map_err(|error| format!("{KEY}: {error}"))
    }

    /// Returns the channel of a namespace.
    pub fn of(&self, namespace: &str) -> Option<&ChannelTemplate> {
        self.namespace_defaults
            .get(namespace)
            .or(self.cluster_default.as_ref())
    }

    /// Returns the channel of the cluster, whatever a namespace says.
    pub fn of_cluster(&self) -> Option<&ChannelTemplate> {
        self.cluster_default.as_ref()
    }
}

/// Reads the channel of a Broker out of the ConfigMap that its `spec.config` names.
pub fn broker_channel_template(data: &Data) -> Result<ChannelTemplate, String> {
    const KEYS: [&str; 2] = ["channel-template-spec", "channelTemplateSpec"];
    let text = read::text(data, &KEYS).unwrap_or_default();
    if text.is_empty() {
        return Err(format!(
            "missing or empty key {:?} in the ConfigMap",
            KEYS[0]
        ));
    }
    let template: ChannelTemplate = serde_json::from_value(read::yaml(text)?)
        .map_err(|error| format!("ConfigMap's value could not be unmarshaled. {error}, {text}"))?;
    for (field, value) in [
        ("apiVersion", &template.api_version),
        ("kind", &template.kind),
    ] {
        if value.is_empty() {
            return Err(format!("key {:?} in the ConfigMap has no {field}", KEYS[0]));
        }
    }
    Ok(template)
}
