//! Everything a Subscription's decision depends on.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::config::eventing::EventingConfigs;
use kinglet_api::destination::{Lookup, Resolved, Resolver, Target, target};
use kinglet_api::duck::{ChannelableSpec, ChannelableStatus, Destination, KReference};
use kinglet_api::messaging::{ChannelStatus, GROUP, Subscription};
use kinglet_api::names;
use kinglet_reconcile::{Context, ResourceKind, key_of};
use serde_json::Value;

use crate::EventingOptions;
use crate::targets::{Look, Targets};

/// Facts about one Subscription.
#[derive(Clone, Debug)]
pub(super) struct SubscriptionObserved {
    pub(super) subscription: Arc<Subscription>,
    /// The channel that events flow through, or why there is none.
    pub(super) channel: Result<Physical, NoChannel>,
    pub(super) subscriber: Option<Result<Resolved, String>>,
    pub(super) reply: Option<Result<Resolved, String>>,
    /// Its own dead letter sink, if it names one.
    pub(super) dead_letter: Option<Result<Resolved, String>>,
    pub(super) configs: Arc<EventingConfigs>,
    pub(super) now: Timestamp,
}

/// Why there is no channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NoChannel {
    pub(super) why: String,
    /// It does not exist, so nothing is left in it.
    pub(super) missing: bool,
}

/// A channel that events flow through.
#[derive(Clone, Debug)]
pub(super) struct Physical {
    pub(super) kind: Arc<ResourceKind>,
    pub(super) object: Value,
}

impl Physical {
    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(super) fn spec(&self) -> ChannelableSpec {
        serde_json::from_value(self.object["spec"].clone()).unwrap_or_default()
    }

    pub(super) fn status(&self) -> ChannelableStatus {
        serde_json::from_value(self.object["status"].clone()).unwrap_or_default()
    }
}

pub(super) async fn observe(
    context: &Context,
    options: &EventingOptions,
    targets: &Targets,
    subscription: Arc<Subscription>,
) -> SubscriptionObserved {
    let mut look = targets.look(&key_of(&*subscription));
    let resolver = Resolver {
        cluster_domain: &options.cluster_domain,
        mapping: None,
    };
    let configs = options.configs.get();
    let namespace = subscription.namespace();
    let channel = channel(&mut look, &subscription, &configs).await;
    let spec = &subscription.spec;
    let delivery = spec.delivery.as_ref();
    let sink = delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref());
    let subscriber = resolve(&mut look, resolver, spec.subscriber.as_ref(), namespace).await;
    let reply = resolve(&mut look, resolver, spec.reply.as_ref(), namespace).await;
    let dead_letter = resolve(&mut look, resolver, sink, namespace).await;
    look.finish();
    SubscriptionObserved {
        channel,
        subscriber,
        reply,
        dead_letter,
        configs,
        now: context.now(),
        subscription,
    }
}

/// An empty destination is none.
async fn resolve(
    look: &mut Look<'_>,
    resolver: Resolver<'_>,
    destination: Option<&Destination>,
    namespace: &str,
) -> Option<Result<Resolved, String>> {
    let destination = destination.filter(|destination| !destination.is_empty())?;
    Some(look.resolve(resolver, destination, namespace).await)
}

/// The channel, through the Channel before it if it is one.
async fn channel(
    look: &mut Look<'_>,
    subscription: &Subscription,
    configs: &EventingConfigs,
) -> Result<Physical, NoChannel> {
    let mut reference = subscription.spec.channel.clone();
    if !configs.features.cross_namespace_event_links.is_on() {
        reference.namespace.clear();
    }
    let namespace = subscription.namespace();
    let first = find(look, &reference, namespace).await?;
    if first.kind.group != GROUP || first.kind.kind != "Channel" {
        return Ok(first);
    }
    let behind = followed(&first.object).map_err(|why| NoChannel {
        why,
        missing: false,
    })?;
    find(look, &behind, namespace).await
}

/// The channel behind a Channel that is ready.
pub(super) fn followed(channel: &Value) -> Result<KReference, String> {
    let name = channel["metadata"]["name"].as_str().unwrap_or_default();
    let generation = channel["metadata"]["generation"]
        .as_i64()
        .unwrap_or_default();
    let status: ChannelStatus =
        serde_json::from_value(channel["status"].clone()).unwrap_or_default();
    let common = &status.channelable.common;
    if !common.is_ready(generation) {
        let ready = common.condition("Ready");
        let why = ready
            .map(|ready| ready.message.as_str())
            .unwrap_or_default();
        return Err(match why {
            "" => format!("Channel {name:?} is not ready"),
            why => format!("Channel {name:?} is not ready: {why}"),
        });
    }
    status
        .channel
        .ok_or_else(|| format!("the status of Channel {name:?} names no channel behind it"))
}

async fn find(
    look: &mut Look<'_>,
    reference: &KReference,
    namespace: &str,
) -> Result<Physical, NoChannel> {
    let target = target(reference, namespace);
    let absent = |why: String| NoChannel { why, missing: true };
    match look.find(&target).await {
        Lookup::Found(object) => {
            let kind = look.kind(&target).await;
            let kind = kind.ok_or_else(|| absent(no_kind(&target)))?;
            Ok(Physical { kind, object })
        }
        Lookup::Missing => Err(absent(not_found(&target))),
        Lookup::UnknownKind => Err(absent(no_kind(&target))),
    }
}

fn not_found(target: &Target) -> String {
    let plural = names::plural(&target.kind);
    let resource = if target.group.is_empty() {
        plural
    } else {
        format!("{plural}.{}", target.group)
    };
    format!("{resource} {:?} not found", target.name)
}

fn no_kind(target: &Target) -> String {
    format!(
        "there is no kind {:?} in {}/{}",
        target.kind, target.group, target.version
    )
}
