//! Everything a Trigger's decision depends on.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::config::eventing::EventingConfigs;
use kinglet_api::destination::{Lookup, Resolved, Resolver, Target};
use kinglet_api::duck::{ObjectReference, Status};
use kinglet_api::eventing::{Broker, Trigger};
use kinglet_api::messaging::Subscription;
use kinglet_api::{eventing, keys, names};
use kinglet_reconcile::{Context, Key, key_of, uid_of};
use serde_json::Value;

use crate::EventingOptions;
use crate::targets::{Look, Targets};

/// Facts about one Trigger.
#[derive(Clone, Debug)]
pub(super) struct TriggerObserved {
    pub(super) trigger: Arc<Trigger>,
    /// Namespace and name of its Broker.
    pub(super) broker_key: Key,
    pub(super) broker: Option<Arc<Broker>>,
    pub(super) subscriber: Result<Resolved, String>,
    /// Its own dead letter sink, if it names one.
    pub(super) dead_letter: Option<Result<Resolved, String>>,
    /// The Subscription of its name.
    pub(super) subscription: Option<Arc<Subscription>>,
    /// The object that it waits for, if it does.
    pub(super) dependency: Option<Dependency>,
    pub(super) configs: Arc<EventingConfigs>,
    pub(super) cluster_domain: Arc<str>,
    pub(super) now: Timestamp,
}

/// The object that a Trigger waits for.
#[derive(Clone, Debug)]
pub(super) enum Dependency {
    /// The annotation cannot be read.
    Unreadable(String),
    /// Nothing of that kind is served.
    UnknownKind(ObjectReference),
    /// There is none.
    Missing(ObjectReference),
    /// Its generation and its status.
    Found(i64, Box<Status>),
}

pub(super) async fn observe(
    context: &Context,
    options: &EventingOptions,
    targets: &Targets,
    trigger: Arc<Trigger>,
) -> TriggerObserved {
    let mut look = targets.look(&key_of(&*trigger));
    let resolver = Resolver {
        cluster_domain: &options.cluster_domain,
        mapping: None,
    };
    let configs = options.configs.get();
    let namespace = trigger.namespace();
    let broker_key = broker_key(&trigger, &configs);
    // Through the targets, so that the Broker's changes wake the Trigger.
    let broker = look.find(&broker_target(&broker_key)).await;
    let broker = match broker {
        Lookup::Found(_) => context.cache::<Broker>().find(&broker_key),
        Lookup::Missing | Lookup::UnknownKind => None,
    };
    let subscriber = look
        .resolve(resolver, &trigger.spec.subscriber, namespace)
        .await;
    let delivery = trigger.spec.delivery.as_ref();
    let dead_letter = match delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref()) {
        Some(sink) => Some(look.resolve(resolver, sink, namespace).await),
        None => None,
    };
    let name = names::trigger_subscription(&broker_key.name, trigger.name(), uid_of(&*trigger));
    let subscription = context.cache::<Subscription>().get(namespace, &name);
    let dependency = match trigger.annotation(keys::DEPENDENCY) {
        Some(text) => Some(dependency(&mut look, text, namespace).await),
        None => None,
    };
    look.finish();
    TriggerObserved {
        broker_key,
        broker,
        subscriber,
        dead_letter,
        subscription,
        dependency,
        configs,
        cluster_domain: Arc::clone(&options.cluster_domain),
        now: context.now(),
        trigger,
    }
}

/// Namespace and name of the Broker: of another namespace only while links across namespaces are on.
fn broker_key(trigger: &Trigger, configs: &EventingConfigs) -> Key {
    let links = configs.features.cross_namespace_event_links.is_on();
    match &trigger.spec.broker_ref {
        Some(reference) if links => {
            let namespace = match reference.namespace.as_str() {
                "" => trigger.namespace(),
                other => other,
            };
            Key::new(namespace, reference.name.as_str())
        }
        Some(reference) if trigger.spec.broker.is_empty() => {
            Key::new(trigger.namespace(), reference.name.as_str())
        }
        _ => Key::new(trigger.namespace(), trigger.spec.broker.as_str()),
    }
}

fn broker_target(key: &Key) -> Target {
    Target {
        group: eventing::GROUP.to_owned(),
        version: "v1".to_owned(),
        kind: "Broker".to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

async fn dependency(look: &mut Look<'_>, text: &str, namespace: &str) -> Dependency {
    let reference: ObjectReference = match serde_json::from_str(text) {
        Ok(reference) => reference,
        Err(error) => return Dependency::Unreadable(error.to_string()),
    };
    let (group, version) = reference
        .api_version
        .split_once('/')
        .unwrap_or(("", &reference.api_version));
    let target = Target {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: reference.kind.clone(),
        // Admission lets no other namespace through.
        namespace: namespace.to_owned(),
        name: reference.name.clone(),
    };
    match look.find(&target).await {
        Lookup::UnknownKind => Dependency::UnknownKind(reference),
        Lookup::Missing => Dependency::Missing(reference),
        Lookup::Found(object) => found(&object),
    }
}

fn found(object: &Value) -> Dependency {
    let generation = object["metadata"]["generation"]
        .as_i64()
        .unwrap_or_default();
    let status = serde_json::from_value(object["status"].clone()).unwrap_or_default();
    Dependency::Found(generation, Box::new(status))
}
