//! Everything a Broker's decision depends on.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::config::eventing::{EventingConfigs, broker_channel_template};
use kinglet_api::destination::{Resolved, Resolver};
use kinglet_api::eventing::Broker;
use kinglet_api::messaging::ChannelTemplate;
use kinglet_api::names;
use kinglet_reconcile::{Context, key_of};

use crate::EventingOptions;
use crate::addresses::{self, FILTER, INGRESS};
use crate::backing::Backing;
use crate::targets::Targets;

/// Facts about one Broker.
#[derive(Clone, Debug)]
pub(super) struct BrokerObserved {
    pub(super) broker: Arc<Broker>,
    /// The kind of its channel, or why it has none; and the channel.
    pub(super) channel: Result<(ChannelTemplate, Backing), String>,
    /// Whether the data plane has endpoints for it.
    pub(super) ingress: bool,
    pub(super) filter: bool,
    /// Its dead letter sink, if it has one.
    pub(super) dead_letter: Option<Result<Resolved, String>>,
    pub(super) configs: Arc<EventingConfigs>,
    pub(super) cluster_domain: Arc<str>,
    pub(super) now: Timestamp,
}

pub(super) async fn observe(
    context: &Context,
    options: &EventingOptions,
    targets: &Targets,
    broker: Arc<Broker>,
) -> BrokerObserved {
    let mut look = targets.look(&key_of(&*broker));
    let resolver = Resolver {
        cluster_domain: &options.cluster_domain,
        mapping: None,
    };
    let channel = match template(context, &broker) {
        Ok(template) => {
            let name = names::broker_channel(broker.name());
            let backing = Backing::observe(&mut look, &template, broker.namespace(), &name).await;
            Ok((template, backing))
        }
        Err(why) => Err(why),
    };
    let delivery = broker.spec.delivery.as_ref();
    let dead_letter = match delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref()) {
        Some(sink) => Some(look.resolve(resolver, sink, broker.namespace()).await),
        None => None,
    };
    look.finish();
    BrokerObserved {
        channel,
        ingress: addresses::has_endpoint(context, INGRESS),
        filter: addresses::has_endpoint(context, FILTER),
        dead_letter,
        configs: options.configs.get(),
        cluster_domain: Arc::clone(&options.cluster_domain),
        now: context.now(),
        broker,
    }
}

/// What kind of channel the Broker's configuration names.
fn template(context: &Context, broker: &Broker) -> Result<ChannelTemplate, String> {
    let config = broker.spec.config.as_ref();
    let config = config.ok_or("Broker.Spec.Config is required")?;
    if config.kind != "ConfigMap" || config.api_version != "v1" {
        return Err("Broker.Spec.Config configuration not supported, only [kind: ConfigMap, apiVersion: v1]".to_owned());
    }
    if config.namespace.is_empty() || config.name.is_empty() {
        return Err("Broker.Spec.Config name and namespace are required".to_owned());
    }
    let maps = context.cache::<ConfigMap>();
    let map = maps
        .get(&config.namespace, &config.name)
        .ok_or_else(|| format!("configmap {:?} not found", config.name))?;
    broker_channel_template(&map.data.clone().unwrap_or_default())
}
