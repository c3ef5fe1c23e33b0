//! What to do about one Trigger: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::conditions::eventing::{self as states, TriggerCondition, reason};
use kinglet_api::conditions::{ConditionState, Conditions};
use kinglet_api::destination::Resolved;
use kinglet_api::duck::{Condition, Destination, KReference};
use kinglet_api::eventing::{Broker, TriggerStatus};
use kinglet_api::messaging::{Subscription, SubscriptionSpec};
use kinglet_api::{keys, names};
use kinglet_reconcile::{
    Cascade, Plan, annotation, is_controlled_by, is_deleting, owner_reference, uid_of,
};

use super::observe::{Dependency, TriggerObserved};
use crate::addresses;
use crate::broker::is_ours;
use crate::data_plane::TriggerInForce;

type States = Conditions<TriggerCondition>;

/// The Trigger as the data plane shall know it: nothing while its Broker is not there.
pub(super) fn in_force(observed: &TriggerObserved) -> Option<TriggerInForce> {
    let broker = observed.broker.as_deref()?;
    let delivery = observed.trigger.spec.delivery.clone();
    Some(TriggerInForce {
        trigger: Arc::clone(&observed.trigger),
        broker: observed.broker_key.clone(),
        subscriber: observed.subscriber.clone().ok(),
        dead_letter: dead_letter(observed, broker).and_then(Result::ok),
        delivery: delivery.or_else(|| broker.spec.delivery.clone()),
        auto_event_types: observed.configs.features.eventtype_auto_create.is_on(),
    })
}

/// Nothing for a Trigger whose Broker is another controller's.
pub(super) fn decide(observed: &TriggerObserved) -> Option<Plan> {
    let trigger = &*observed.trigger;
    if observed
        .broker
        .as_ref()
        .is_some_and(|broker| !is_ours(broker))
    {
        return None;
    }
    let mut plan = Plan::new();
    let mut status = trigger.status.clone();
    let conditions = match steps(observed, &mut status, &mut plan) {
        Ok(complete) => complete,
        Err(stopped) => stopped,
    };
    let before = &trigger.status.common.conditions;
    status.common.conditions = conditions.finish(before, observed.now);
    status.common.observed_generation = trigger.generation();
    plan.status(trigger, &status);
    Some(plan)
}

/// Goes as far as it can; what comes after an obstacle stays as it was, as in Knative.
fn steps(
    observed: &TriggerObserved,
    status: &mut TriggerStatus,
    plan: &mut Plan,
) -> Result<States, States> {
    let none = States::new();
    let Some(broker) = observed.broker.as_deref() else {
        let words = format!("Broker {:?} does not exist", &*observed.broker_key.name);
        let missing = ConditionState::false_because(reason::BROKER_DOES_NOT_EXIST, words);
        return Err(none.with(TriggerCondition::BrokerReady, missing));
    };
    if !broker.status.common.is_ready(broker.generation()) {
        return Err(none.with(TriggerCondition::BrokerReady, waiting_for(broker)));
    }
    let Some(channel) = channel(broker) else {
        let words = format!("the status of Broker {:?} names no channel", broker.name());
        plan.fail(false, &words);
        let missing = ConditionState::false_because(reason::MISSING_BROKER_CHANNEL, words);
        return Err(none.with(TriggerCondition::BrokerReady, missing));
    };
    let states = none.with(TriggerCondition::BrokerReady, ConditionState::True);

    note_subscriber(status, observed.subscriber.as_ref().ok());
    if let Err(why) = &observed.subscriber {
        plan.fail(false, why);
        let unresolved = states::subscriber_unresolved(why);
        return Err(states.with(TriggerCondition::SubscriberResolved, unresolved));
    }
    let states = states.with(TriggerCondition::SubscriberResolved, ConditionState::True);

    let sink = dead_letter(observed, broker);
    status.delivery = addresses::delivery_status(sink.as_ref().and_then(|sink| sink.as_ref().ok()));
    let resolved = match &sink {
        None => states::no_dead_letter_sink(),
        Some(Ok(_)) => ConditionState::True,
        Some(Err(why)) => {
            plan.fail(false, why);
            let unresolved = states::dead_letter_sink_unresolved(why);
            return Err(states.with(TriggerCondition::DeadLetterSinkResolved, unresolved));
        }
    };
    let states = states
        .with(TriggerCondition::DeadLetterSinkResolved, resolved)
        .with(
            TriggerCondition::OIDCIdentityCreated,
            addresses::identity(&observed.configs.features),
        );

    let subscribed = subscribe(observed, &subscription(observed, broker, channel), plan);
    Ok(states
        .with(TriggerCondition::SubscriptionReady, subscribed)
        .with(TriggerCondition::DependencyReady, dependency(observed)))
}

/// What the Broker says about itself while it is not ready.
fn waiting_for(broker: &Broker) -> ConditionState {
    match broker.status.common.condition("Ready") {
        None => ConditionState::unknown_because(
            "BrokerNotConfigured",
            "Broker has not yet been reconciled.",
        ),
        Some(ready) if ready.is_true() => ConditionState::unknown_because(
            reason::BROKER_UNKNOWN,
            "The newest generation of the Broker has not yet been reconciled.",
        ),
        ready => ConditionState::mirror(ready),
    }
}

/// The channel that the Broker's status names.
fn channel(broker: &Broker) -> Option<KReference> {
    let noted = |key: &str| broker.status.common.annotations.get(key).cloned();
    Some(KReference {
        kind: noted(keys::CHANNEL_KIND)?,
        api_version: noted(keys::CHANNEL_API_VERSION)?,
        name: noted(keys::CHANNEL_NAME)?,
        ..KReference::default()
    })
}

fn note_subscriber(status: &mut TriggerStatus, resolved: Option<&Resolved>) {
    status.subscriber_uri = resolved.map(|one| one.url.clone());
    status.subscriber_ca_certs = resolved.and_then(|one| one.ca_certs.clone());
    status.subscriber_audience = resolved.and_then(|one| one.audience.clone());
}

/// The Trigger's own dead letter sink, else the one that the Broker has resolved.
fn dead_letter(observed: &TriggerObserved, broker: &Broker) -> Option<Result<Resolved, String>> {
    let own = observed.dead_letter.clone();
    own.or_else(|| addresses::dead_letter_sink(&broker.status.delivery).map(Ok))
}

/// The Subscription as it shall be.
fn subscription(
    observed: &TriggerObserved,
    broker: &Broker,
    mut channel: KReference,
) -> Subscription {
    let trigger = &*observed.trigger;
    let (name, namespace) = (trigger.name(), trigger.namespace());
    if broker.namespace() != namespace {
        broker.namespace().clone_into(&mut channel.namespace);
    }
    let filter = addresses::host(addresses::FILTER, &observed.cluster_domain);
    let uid = uid_of(trigger);
    let reply = KReference {
        kind: "Broker".to_owned(),
        namespace: broker.namespace().to_owned(),
        name: broker.name().to_owned(),
        api_version: "eventing.knative.dev/v1".to_owned(),
        ..KReference::default()
    };
    let own = trigger.spec.delivery.clone();
    Subscription {
        metadata: ObjectMeta {
            name: Some(names::trigger_subscription(broker.name(), name, uid)),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([
                (keys::BROKER.to_owned(), broker.name().to_owned()),
                (keys::TRIGGER.to_owned(), name.to_owned()),
            ])),
            annotations: order(observed),
            owner_references: Some(vec![owner_reference(trigger)]),
            ..ObjectMeta::default()
        },
        spec: SubscriptionSpec {
            channel,
            subscriber: Some(Destination::uri(format!(
                "http://{filter}/triggers/{namespace}/{name}/{uid}"
            ))),
            reply: Some(Destination::reference(reply)),
            delivery: own.or_else(|| broker.spec.delivery.clone()),
        },
        ..Subscription::default()
    }
}

/// The annotation that asks for events in order.
fn order(observed: &TriggerObserved) -> Option<BTreeMap<String, String>> {
    let handed: BTreeMap<String, String> = [keys::DELIVERY_ORDER, keys::KAFKA_DELIVERY_ORDER]
        .into_iter()
        .filter_map(|key| {
            Some((
                key.to_owned(),
                annotation(&*observed.trigger, key)?.to_owned(),
            ))
        })
        .collect();
    (!handed.is_empty()).then_some(handed)
}

/// Makes the Subscription, or makes it as it shall be; tells how it is.
fn subscribe(observed: &TriggerObserved, wanted: &Subscription, plan: &mut Plan) -> ConditionState {
    let trigger = &*observed.trigger;
    let Some(found) = observed.subscription.as_deref() else {
        plan.create(wanted);
        return not_yet();
    };
    if !is_controlled_by(found, trigger) {
        let words = format!(
            "trigger {:?} does not own subscription {:?}",
            trigger.name(),
            found.name()
        );
        plan.fail(false, &words);
        return ConditionState::false_because(reason::SUBSCRIPTION_NOT_OWNED, words);
    }
    if is_deleting(found) {
        return not_yet();
    }
    if found.spec.channel != wanted.spec.channel {
        // The channel of a Subscription cannot change; what waited in the old one goes with it.
        plan.delete(found, Cascade::Background);
        return not_yet();
    }
    let mut desired = found.clone();
    desired.spec = wanted.spec.clone();
    for key in [keys::DELIVERY_ORDER, keys::KAFKA_DELIVERY_ORDER] {
        let annotations = desired.metadata.annotations.get_or_insert_default();
        match annotation(wanted, key) {
            Some(value) => annotations.insert(key.to_owned(), value.to_owned()),
            None => annotations.remove(key),
        };
    }
    plan.update(found, &desired);
    match found.status.common.condition("Ready") {
        None => not_yet(),
        Some(ready) if found.status.common.observed_generation != found.generation() => {
            stale(ready)
        }
        ready => ConditionState::mirror(ready),
    }
}

fn not_yet() -> ConditionState {
    ConditionState::unknown_because(
        "SubscriptionNotConfigured",
        "Subscription has not yet been reconciled.",
    )
}

/// What was said about an earlier generation counts only if it is bad news.
fn stale(ready: &Condition) -> ConditionState {
    if ready.is_true() {
        return not_yet();
    }
    ConditionState::mirror(Some(ready))
}

fn dependency(observed: &TriggerObserved) -> ConditionState {
    match &observed.dependency {
        None => ConditionState::True,
        Some(Dependency::Unreadable(why)) => ConditionState::false_because(
            reason::REFERENCE_ERROR,
            format!(
                "Unable to unmarshal objectReference from dependency annotation of trigger: {why}"
            ),
        ),
        Some(Dependency::UnknownKind(reference)) => ConditionState::unknown_because(
            reason::LISTER_DOES_NOT_EXIST,
            format!(
                "there is no kind {:?} in {}",
                reference.kind, reference.api_version
            ),
        ),
        Some(Dependency::Missing(reference)) => ConditionState::false_because(
            reason::DEPENDENCY_DOES_NOT_EXIST,
            format!(
                "Dependency does not exist: {} {:?}",
                reference.kind, reference.name
            ),
        ),
        Some(Dependency::Found(generation, status)) => match status.condition("Ready") {
            _ if status.observed_generation != *generation => ConditionState::unknown_because(
                reason::GENERATION_NOT_EQUAL,
                format!(
                    "The dependency's metadata.generation, {generation}, is not equal to its status.observedGeneration, {}.",
                    status.observed_generation
                ),
            ),
            None => ConditionState::unknown_because(
                reason::DEPENDENCY_UNKNOWN,
                "The dependency says nothing about being ready.",
            ),
            ready => ConditionState::mirror(ready),
        },
    }
}
