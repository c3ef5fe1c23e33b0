//! What to do about one Subscription: pure.

use kinglet_api::conditions::eventing::{SubscriptionCondition, reason};
use kinglet_api::conditions::{ConditionState, Conditions};
use kinglet_api::destination::Resolved;
use kinglet_api::duck::{ConditionStatus, DeliverySpec, Destination, SubscriberSpec};
use kinglet_api::messaging::{PhysicalSubscription, SubscriptionStatus};
use kinglet_reconcile::{Plan, Write, is_deleting, uid_of};
use serde_json::json;

use super::observe::{Physical, SubscriptionObserved};
use crate::addresses;

/// Finalizer: the channel knows this Subscription.
const FINALIZER: &str = "subscriptions.messaging.knative.dev";

type States = Conditions<SubscriptionCondition>;

pub(super) fn decide(observed: &SubscriptionObserved) -> Plan {
    let subscription = &*observed.subscription;
    let mut plan = Plan::new();
    if is_deleting(subscription) {
        finalize(observed, &mut plan);
        return plan;
    }
    let finalizers = subscription.metadata.finalizers.iter().flatten();
    if !finalizers.into_iter().any(|known| known == FINALIZER) {
        plan.add_finalizer(subscription, FINALIZER);
        plan.normal(
            subscription,
            "FinalizerUpdate",
            format!("Updated {:?} finalizers", subscription.name()),
        );
    }
    let mut status = subscription.status.clone();
    let conditions = match steps(observed, &mut status, &mut plan) {
        Ok(complete) => complete,
        Err(stopped) => stopped,
    };
    let conditions = conditions.with(
        SubscriptionCondition::OIDCIdentityCreated,
        addresses::identity(&observed.configs.features),
    );
    let before = &subscription.status.common.conditions;
    status.common.conditions = conditions.finish(before, observed.now);
    status.common.observed_generation = subscription.generation();
    plan.status(subscription, &status);
    plan
}

/// Takes the entry out of the channel, then lets the Subscription go.
fn finalize(observed: &SubscriptionObserved, plan: &mut Plan) {
    let subscription = &*observed.subscription;
    let uid = uid_of(subscription);
    match &observed.channel {
        Ok(channel) => {
            let mut subscribers = channel.spec().subscribers;
            let before = subscribers.len();
            subscribers.retain(|one| one.uid != uid);
            if subscribers.len() < before {
                plan.write(with_subscribers(channel, &subscribers));
                plan.normal(
                    subscription,
                    "SubscriberRemoved",
                    format!("Subscription was removed from channel {:?}", channel.name()),
                );
            }
        }
        Err(why) if why.missing => {}
        // A Channel that is not ready at present may still have it.
        Err(why) => {
            let known = !subscription
                .status
                .physical_subscription
                .eq(&PhysicalSubscription::default());
            if known {
                plan.fail(true, format!("removing the subscriber: {}", why.why));
                return;
            }
        }
    }
    plan.remove_finalizer(subscription, FINALIZER);
}

/// Goes as far as it can; what comes after an obstacle stays as it was, as in Knative.
fn steps(
    observed: &SubscriptionObserved,
    status: &mut SubscriptionStatus,
    plan: &mut Plan,
) -> Result<States, States> {
    let subscription = &*observed.subscription;
    let none = States::new();
    let channel = match &observed.channel {
        Ok(channel) => channel,
        Err(why) => {
            let words = format!("Failed to get Spec.Channel or backing channel: {}", why.why);
            let before = subscription.status.common.condition("ReferencesResolved");
            if before.is_none_or(|before| before.message != words) {
                plan.warning(
                    subscription,
                    reason::CHANNEL_REFERENCE_FAILED,
                    words.clone(),
                );
            }
            let failed = ConditionState::unknown_because(reason::CHANNEL_REFERENCE_FAILED, words);
            return Err(none.with(SubscriptionCondition::ReferencesResolved, failed));
        }
    };
    if let Err((reason, words)) = resolve(observed, channel, &mut status.physical_subscription) {
        let before = subscription.status.common.condition("ReferencesResolved");
        if before.is_none_or(|before| before.message != words) {
            plan.warning(subscription, reason, words.clone());
        }
        let failed = ConditionState::false_because(reason, words);
        return Err(none.with(SubscriptionCondition::ReferencesResolved, failed));
    }
    let states = none.with(
        SubscriptionCondition::ReferencesResolved,
        ConditionState::True,
    );
    sync(observed, channel, &status.physical_subscription, plan);
    Ok(states
        .with(SubscriptionCondition::AddedToChannel, ConditionState::True)
        .with(
            SubscriptionCondition::ChannelReady,
            readiness(observed, channel),
        ))
}

/// Notes where everything leads; the reason and the words of what leads nowhere.
fn resolve(
    observed: &SubscriptionObserved,
    channel: &Physical,
    physical: &mut PhysicalSubscription,
) -> Result<(), (&'static str, String)> {
    let known = |resolved: &Option<Result<Resolved, String>>, reason, what: &str| match resolved {
        Some(Err(why)) => Err((reason, format!("Failed to resolve {what}: {why}"))),
        Some(Ok(resolved)) => Ok(Some(resolved.clone())),
        None => Ok(None),
    };
    *physical = PhysicalSubscription::default();
    let failed = reason::SUBSCRIBER_RESOLVE_FAILED;
    if let Some(to) = known(&observed.subscriber, failed, "spec.subscriber")? {
        physical.subscriber_uri = Some(to.url);
        physical.subscriber_ca_certs = to.ca_certs;
        physical.subscriber_audience = to.audience;
    }
    let failed = reason::REPLY_RESOLVE_FAILED;
    if let Some(to) = known(&observed.reply, failed, "spec.reply")? {
        physical.reply_uri = Some(to.url);
        physical.reply_ca_certs = to.ca_certs;
        physical.reply_audience = to.audience;
    }
    let failed = reason::DEAD_LETTER_SINK_RESOLVE_FAILED;
    let own = known(
        &observed.dead_letter,
        failed,
        "spec.delivery.deadLetterSink",
    )?;
    let sink = own.or_else(|| addresses::dead_letter_sink(&channel.status().delivery));
    physical.delivery = addresses::delivery_status(sink.as_ref());
    Ok(())
}

/// Puts the entry among the channel's subscribers, if it is not there as it shall be.
fn sync(
    observed: &SubscriptionObserved,
    channel: &Physical,
    physical: &PhysicalSubscription,
    plan: &mut Plan,
) {
    let subscription = &*observed.subscription;
    let spec = channel.spec();
    let uid = uid_of(subscription);
    let entry = SubscriberSpec {
        name: Some(subscription.name().to_owned()),
        uid: uid.to_owned(),
        generation: subscription.generation(),
        subscriber_uri: physical.subscriber_uri.clone(),
        subscriber_ca_certs: physical.subscriber_ca_certs.clone(),
        subscriber_audience: physical.subscriber_audience.clone(),
        reply_uri: physical.reply_uri.clone(),
        reply_ca_certs: physical.reply_ca_certs.clone(),
        reply_audience: physical.reply_audience.clone(),
        delivery: delivery(observed, spec.delivery.as_ref(), physical),
        auth: None,
    };
    let mut subscribers = spec.subscribers;
    match subscribers.iter_mut().find(|one| one.uid == uid) {
        Some(known) if *known == entry => return,
        Some(known) => *known = entry,
        None => subscribers.push(entry),
    }
    plan.write(with_subscribers(channel, &subscribers));
    plan.normal(
        subscription,
        "SubscriberSync",
        format!(
            "Subscription was synchronized to channel {:?}",
            channel.name()
        ),
    );
}

fn with_subscribers(channel: &Physical, subscribers: &[SubscriberSpec]) -> Write {
    let mut desired = channel.object.clone();
    desired["spec"]["subscribers"] = json!(subscribers);
    Write::update_untyped(&channel.kind, channel.object.clone(), desired)
}

/// The Subscription's own delivery or, if it says nothing, the channel's; never a mixture, but for the dead letter sink.
/// Its format is handed on, too, which Knative forgets.
fn delivery(
    observed: &SubscriptionObserved,
    of_channel: Option<&DeliverySpec>,
    physical: &PhysicalSubscription,
) -> Option<DeliverySpec> {
    let own = observed.subscription.spec.delivery.as_ref();
    let sink = addresses::dead_letter_sink(&physical.delivery).map(|sink| Destination {
        uri: Some(sink.url),
        ca_certs: sink.ca_certs,
        audience: sink.audience,
        reference: None,
    });
    let delivery = DeliverySpec {
        dead_letter_sink: sink,
        ..own.or(of_channel).cloned().unwrap_or_default()
    };
    (delivery != DeliverySpec::default()).then_some(delivery)
}

/// What the channel says about exactly this generation.
fn readiness(observed: &SubscriptionObserved, channel: &Physical) -> ConditionState {
    let subscription = &*observed.subscription;
    let status = channel.status();
    let said = status.subscribers.iter().find(|one| {
        one.uid == uid_of(subscription) && one.observed_generation == subscription.generation()
    });
    let because = |words: &str, told: &str| match told {
        "" => words.to_owned(),
        told => format!("{words}: {told}"),
    };
    match said.map(|said| (said.ready, said.message.as_str())) {
        None => ConditionState::unknown_because(
            reason::NOT_MARKED_READY,
            format!(
                "Failed to get subscription status: subscription {:?} not present in channel {:?} subscriber's list",
                subscription.name(),
                channel.name()
            ),
        ),
        Some((Some(ConditionStatus::True), _)) => ConditionState::True,
        Some((Some(ConditionStatus::False), told)) => ConditionState::false_because(
            reason::NOT_MARKED_READY,
            because("Subscription marked by Channel as False", told),
        ),
        Some((_, told)) => ConditionState::unknown_because(
            reason::NOT_MARKED_READY,
            because("Subscription marked by Channel as Unknown", told),
        ),
    }
}
