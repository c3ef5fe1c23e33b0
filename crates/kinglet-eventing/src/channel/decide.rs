//! What to do about one Channel: pure.

use std::collections::BTreeMap;

use kinglet_api::conditions::eventing::{self as states, ChannelCondition, reason};
use kinglet_api::conditions::{ConditionState, Conditions};
use kinglet_api::duck::{ChannelableStatus, KReference};
use kinglet_api::messaging::{ChannelStatus, ChannelTemplate};
use kinglet_reconcile::{Plan, Write, owner_reference, uid_of};

use super::observe::ChannelObserved;
use crate::backing::{Backing, Wanted, unknown_kind};

pub(super) fn decide(observed: &ChannelObserved) -> Plan {
    let channel = &*observed.channel;
    let mut plan = Plan::new();
    let mut status = channel.status.clone();
    let policies = states::event_policies(&observed.configs.features, &[]);
    let conditions = Conditions::new().with(ChannelCondition::EventPoliciesReady, policies);
    let conditions = match &observed.backing {
        None => {
            let why = "the Channel has no channelTemplate, and default-ch-webhook names none";
            plan.fail(false, why);
            let failed = ConditionState::false_because(reason::CHANNEL_FAILURE, why);
            conditions.with(ChannelCondition::BackingChannelReady, failed)
        }
        Some((template, backing)) => match behind(observed, template, backing, &mut plan) {
            Some(failed) => conditions.with(ChannelCondition::BackingChannelReady, failed),
            None => mirror(
                observed,
                template,
                &backing.status(),
                &mut status,
                conditions,
            ),
        },
    };
    let before = &channel.status.channelable.common.conditions;
    status.channelable.common.conditions = conditions.finish(before, observed.now);
    status.channelable.common.observed_generation = channel.generation();
    plan.status(channel, &status);
    plan
}

/// Makes the channel behind, if it is missing; why not, if it cannot be.
fn behind(
    observed: &ChannelObserved,
    template: &ChannelTemplate,
    backing: &Backing,
    plan: &mut Plan,
) -> Option<ConditionState> {
    let channel = &*observed.channel;
    let Some(kind) = &backing.kind else {
        let why = unknown_kind(template);
        plan.fail(false, &why);
        return Some(ConditionState::false_because(reason::CHANNEL_FAILURE, why));
    };
    let Some(found) = &backing.found else {
        let wanted = Wanted {
            template,
            namespace: channel.namespace(),
            name: channel.name(),
            owner: owner_reference(channel),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            delivery: channel.spec.channelable.delivery.as_ref(),
        };
        plan.write(Write::create_untyped(kind, wanted.build()));
        return None;
    };
    let owners = found["metadata"]["ownerReferences"].as_array();
    let uid = uid_of(channel);
    if owners
        .into_iter()
        .flatten()
        .any(|owner| owner["uid"] == uid)
    {
        return None;
    }
    let why = format!(
        "{} {:?} exists and does not belong to this Channel; delete it, or name the Channel differently",
        template.kind,
        channel.name()
    );
    plan.fail(false, &why);
    Some(ConditionState::false_because(reason::CHANNEL_FAILURE, why))
}

/// Takes over what the channel behind says.
fn mirror(
    observed: &ChannelObserved,
    template: &ChannelTemplate,
    backing: &ChannelableStatus,
    status: &mut ChannelStatus,
    conditions: Conditions<ChannelCondition>,
) -> Conditions<ChannelCondition> {
    let channel = &*observed.channel;
    status.channel = Some(KReference {
        kind: template.kind.clone(),
        namespace: channel.namespace().to_owned(),
        name: channel.name().to_owned(),
        api_version: template.api_version.clone(),
        ..KReference::default()
    });
    status.channelable.addresses = backing.addresses.clone();
    status
        .channelable
        .subscribers
        .clone_from(&backing.subscribers);
    status.channelable.delivery = backing.delivery.clone();
    let ready = match backing.common.condition("Ready") {
        None => ConditionState::unknown_because(
            "BackingChannelNotConfigured",
            "BackingChannel has not yet been reconciled.",
        ),
        ready => ConditionState::mirror(ready),
    };
    let address = backing.addresses.address.as_ref();
    let addressable = match address.and_then(|address| address.url.as_deref()) {
        Some(_) => ConditionState::True,
        None => {
            ConditionState::false_because(reason::EMPTY_HOSTNAME, "hostname is the empty string")
        }
    };
    conditions
        .with(ChannelCondition::BackingChannelReady, ready)
        .with(ChannelCondition::Addressable, addressable)
        .with(
            ChannelCondition::DeadLetterSinkResolved,
            dead_letter(observed, backing),
        )
}

/// The dead letter sink is resolved by the channel behind.
fn dead_letter(observed: &ChannelObserved, backing: &ChannelableStatus) -> ConditionState {
    let channel = &*observed.channel;
    let delivery = channel.spec.channelable.delivery.as_ref();
    if delivery.is_none_or(|delivery| delivery.dead_letter_sink.is_none()) {
        return states::no_dead_letter_sink();
    }
    if backing.delivery.dead_letter_sink_uri.is_some() {
        return ConditionState::True;
    }
    let told = backing.common.condition("DeadLetterSinkResolved");
    let words = match told.filter(|told| told.is_false()) {
        Some(told) => told.message.clone(),
        None => format!(
            "Backing Channel {} didn't set status.deadLetterSinkURI",
            channel.name()
        ),
    };
    states::dead_letter_sink_unresolved(&words)
}
