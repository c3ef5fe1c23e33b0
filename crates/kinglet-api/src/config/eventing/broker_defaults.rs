//! `config-br-defaults`: class, configuration and delivery of Brokers that say nothing about them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{Data, read};
use crate::duck::{DeliverySpec, KReference};

const KEY: &str = "default-br-config";

/// Where a Broker's class gets its configuration from, and how its events are delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DefaultBrokerConfig {
    /// What becomes `spec.config`.
    #[serde(flatten)]
    pub reference: KReference,
    /// What becomes `spec.delivery`.
    pub delivery: Option<DeliverySpec>,
}

/// Defaults of a namespace, or of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Defaults {
    broker_class: String,
    #[serde(flatten)]
    config: DefaultBrokerConfig,
    broker_classes: BTreeMap<String, DefaultBrokerConfig>,
    disallow_different_namespace_config: Option<bool>,
}

/// `config-br-defaults`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerDefaults {
    cluster_default: Option<Defaults>,
    #[serde(default)]
    namespace_defaults: BTreeMap<String, Defaults>,
}

impl Default for BrokerDefaults {
    /// As shipped.
    fn default() -> Self {
        Self {
            cluster_default: Some(Defaults {
                broker_class: crate::keys::BROKER_CLASS_MT.to_owned(),
                config: DefaultBrokerConfig {
                    reference: KReference {
                        kind: "ConfigMap".to_owned(),
                        namespace: super::SYSTEM_NAMESPACE.to_owned(),
                        name: super::BROKER_CHANNEL.to_owned(),
                        api_version: "v1".to_owned(),
                        ..KReference::default()
                    },
                    delivery: Some(DeliverySpec {
                        retry: Some(10),
                        backoff_policy: Some("exponential".to_owned()),
                        backoff_delay: Some("PT0.2S".to_owned()),
                        ..DeliverySpec::default()
                    }),
                },
                ..Defaults::default()
            }),
            namespace_defaults: BTreeMap::new(),
        }
    }
}

impl BrokerDefaults {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let text = read::text(data, &[KEY]).unwrap_or_default();
        if text.is_empty() {
            return Err(format!("ConfigMap is missing (or empty) key: {KEY:?}"));
        }
        serde_json::from_value(read::yaml(text)?).map_err(|error| format!("{KEY}: {error}"))
    }

    /// Returns the class of Brokers of a namespace that name none.
    pub fn class(&self, namespace: &str) -> &str {
        self.namespace_defaults
            .get(namespace)
            .into_iter()
            .chain(&self.cluster_default)
            .map(|defaults| defaults.broker_class.as_str())
            .find(|class| !class.is_empty())
            .unwrap_or_default()
    }

    /// Returns what a Broker of that class gets in that namespace (spec/eventing.md 3.3); none if the cluster has no defaults
    /// and the namespace says nothing either.
    pub fn config(&self, namespace: &str, class: &str) -> Option<&DefaultBrokerConfig> {
        let of_namespace = self.namespace_defaults.get(namespace).and_then(|defaults| {
            let asked = if class.is_empty() {
                &defaults.broker_class
            } else {
                class
            };
            defaults.broker_classes.get(asked).or_else(|| {
                let inline = asked == defaults.broker_class && !defaults.config.is_empty();
                inline.then_some(&defaults.config)
            })
        });
        of_namespace.or_else(|| {
            let cluster = self.cluster_default.as_ref()?;
            Some(cluster.broker_classes.get(class).unwrap_or(&cluster.config))
        })
    }

    /// Whether the configuration of a Broker must be in its own namespace: either level may say so, and neither takes it back.
    pub fn keeps_to_namespace(&self, namespace: &str) -> bool {
        self.namespace_defaults
            .get(namespace)
            .into_iter()
            .chain(&self.cluster_default)
            .any(|defaults| defaults.disallow_different_namespace_config == Some(true))
    }
}

impl DefaultBrokerConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
