//! What to do about one Broker: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinglet_api::conditions::eventing::{self as states, BrokerCondition, reason};
use kinglet_api::conditions::{ConditionState, Conditions};
use kinglet_api::duck::{Addressable, ChannelableStatus};
use kinglet_api::eventing::BrokerStatus;
use kinglet_api::messaging::ChannelTemplate;
use kinglet_api::{keys, names};
use kinglet_reconcile::{Plan, Write, owner_reference};

use super::observe::BrokerObserved;
use crate::addresses;
use crate::backing::{Backing, Wanted, unknown_kind};
use crate::data_plane::BrokerInForce;

/// Prefix of the annotations that a Broker hands to its channel.
const MESSAGING: &str = "messaging.knative.dev";

/// The Broker as the data plane shall know it.
pub(super) fn in_force(observed: &BrokerObserved) -> BrokerInForce {
    let channel = observed.channel.as_ref().ok().and_then(|(_, backing)| {
        let address = backing.status().addresses.address?;
        Some((backing.id()?, address.url?))
    });
    BrokerInForce {
        broker: Arc::clone(&observed.broker),
        channel,
        auto_event_types: observed.configs.features.eventtype_auto_create.is_on(),
    }
}

/// `refused` is what the data plane says against the Broker.
pub(super) fn decide(observed: &BrokerObserved, refused: Option<String>) -> Plan {
    let broker = &*observed.broker;
    let mut plan = Plan::new();
    let mut status = broker.status.clone();
    let mut conditions = Conditions::new();
    match &observed.channel {
        Err(why) => {
            let words = format!("Error on setting up the ChannelTemplate: {why}");
            let failed = ConditionState::false_because(reason::CHANNEL_TEMPLATE_FAILED, words);
            conditions = conditions.with(BrokerCondition::TriggerChannelReady, failed);
            plan.fail(false, why);
        }
        Ok((template, backing)) => {
            let ready = channel(observed, template, backing, &mut status, &mut plan);
            conditions = conditions.with(BrokerCondition::TriggerChannelReady, ready);
            conditions = endpoints(observed, conditions);
            conditions = dead_letter(observed, &mut status, conditions, &mut plan);
            conditions = address(observed, refused, &mut status, conditions, &mut plan);
        }
    }
    let before = &broker.status.common.conditions;
    status.common.conditions = conditions.finish(before, observed.now);
    status.common.observed_generation = broker.generation();
    plan.status(broker, &status);
    plan
}

/// Makes or mends the channel, and notes in the status which one it is.
fn channel(
    observed: &BrokerObserved,
    template: &ChannelTemplate,
    backing: &Backing,
    status: &mut BrokerStatus,
    plan: &mut Plan,
) -> ConditionState {
    let broker = &*observed.broker;
    let Some(kind) = &backing.kind else {
        let why = unknown_kind(template);
        plan.fail(false, &why);
        return ConditionState::false_because(reason::CHANNEL_FAILURE, why);
    };
    let name = names::broker_channel(broker.name());
    let wanted = Wanted {
        template,
        namespace: broker.namespace(),
        name: &name,
        owner: owner_reference(broker),
        labels: BTreeMap::from([
            (keys::BROKER.to_owned(), broker.name().to_owned()),
            (keys::BROKER_EVERYTHING.to_owned(), "true".to_owned()),
        ]),
        annotations: annotations(observed),
        delivery: broker.spec.delivery.as_ref(),
    };
    match &backing.found {
        None => {
            plan.write(Write::create_untyped(kind, wanted.build()));
        }
        Some(found) => {
            let owners = found["metadata"]["ownerReferences"].as_array();
            let uid = broker.metadata.uid.as_deref().unwrap_or_default();
            if !owners
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == uid)
            {
                let why = format!(
                    "{} {name:?} exists and does not belong to this Broker; delete it, or name the Broker differently",
                    template.kind
                );
                plan.fail(false, &why);
                return ConditionState::false_because(reason::CHANNEL_FAILURE, why);
            }
            if let Some(mended) = wanted.mended(found) {
                plan.write(Write::update_untyped(kind, found.clone(), mended));
            }
        }
    }
    let state = backing.status();
    note(template, &name, state.addresses.address.as_ref(), status);
    readiness(&state)
}

fn annotations(observed: &BrokerObserved) -> BTreeMap<String, String> {
    let handed = observed.broker.metadata.annotations.iter().flatten();
    let mut annotations: BTreeMap<String, String> = handed
        .filter(|(key, _)| key.starts_with(MESSAGING))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.insert(keys::SCOPE.to_owned(), "cluster".to_owned());
    annotations
}

/// Notes in the status which channel the Broker has, for Triggers and for the ingress.
fn note(
    template: &ChannelTemplate,
    name: &str,
    address: Option<&Addressable>,
    status: &mut BrokerStatus,
) {
    let known = [
        (keys::CHANNEL_KIND, Some(template.kind.clone())),
        (
            keys::CHANNEL_API_VERSION,
            Some(template.api_version.clone()),
        ),
        (keys::CHANNEL_NAME, Some(name.to_owned())),
        (
            keys::CHANNEL_ADDRESS,
            address.and_then(|one| one.url.clone()),
        ),
        (
            keys::CHANNEL_CA_CERTS,
            address.and_then(|one| one.ca_certs.clone()),
        ),
        (
            keys::CHANNEL_AUDIENCE,
            address.and_then(|one| one.audience.clone()),
        ),
    ];
    // Without an address there is no channel for anybody yet.
    let complete = address.is_some();
    for (key, value) in known {
        match value.filter(|_| complete) {
            Some(value) => status.common.annotations.insert(key.to_owned(), value),
            None => status.common.annotations.remove(key),
        };
    }
}

/// Whether the channel takes events: Knative asks for an address only; what the channel says against itself is passed on.
fn readiness(channel: &ChannelableStatus) -> ConditionState {
    let ready = channel.common.condition("Ready");
    if channel.addresses.address.is_some() && ready.is_none_or(|ready| !ready.is_false()) {
        return ConditionState::True;
    }
    match ready {
        Some(ready) if ready.is_false() => {
            ConditionState::false_because(reason::CHANNEL_FAILURE, ready.message.clone())
        }
        _ => ConditionState::false_because(reason::NO_ADDRESS, "Channel does not have an address."),
    }
}

fn endpoints(
    observed: &BrokerObserved,
    conditions: Conditions<BrokerCondition>,
) -> Conditions<BrokerCondition> {
    let state = |ready: bool, service: &str| {
        if ready {
            return ConditionState::True;
        }
        let words = format!("Service {service:?} has no endpoint that is ready.");
        ConditionState::false_because(reason::ENDPOINT_SLICES_UNAVAILABLE, words)
    };
    let filter = state(observed.filter, addresses::FILTER);
    let ingress = state(observed.ingress, addresses::INGRESS);
    conditions
        .with(BrokerCondition::FilterReady, filter)
        .with(BrokerCondition::IngressReady, ingress)
}

fn dead_letter(
    observed: &BrokerObserved,
    status: &mut BrokerStatus,
    conditions: Conditions<BrokerCondition>,
    plan: &mut Plan,
) -> Conditions<BrokerCondition> {
    let resolved = observed.dead_letter.as_ref();
    status.delivery = addresses::delivery_status(resolved.and_then(|sink| sink.as_ref().ok()));
    let state = match resolved {
        None => states::no_dead_letter_sink(),
        Some(Ok(_)) => ConditionState::True,
        Some(Err(why)) => {
            plan.fail(false, why);
            states::dead_letter_sink_unresolved(why)
        }
    };
    conditions.with(BrokerCondition::DeadLetterSinkResolved, state)
}

fn address(
    observed: &BrokerObserved,
    refused: Option<String>,
    status: &mut BrokerStatus,
    conditions: Conditions<BrokerCondition>,
    plan: &mut Plan,
) -> Conditions<BrokerCondition> {
    let broker = &*observed.broker;
    let host = addresses::host(addresses::INGRESS, &observed.cluster_domain);
    let url = format!("http://{host}/{}/{}", broker.namespace(), broker.name());
    status.addresses = addresses::one(url);
    let features = &observed.configs.features;
    let mut addressable = addresses::addressable(features);
    if let Some(why) = refused {
        addressable = ConditionState::false_because(reason::SERVICE_FAILURE, why.clone());
        plan.fail(true, why);
    }
    conditions
        .with(BrokerCondition::Addressable, addressable)
        .with(
            BrokerCondition::EventPoliciesReady,
            states::event_policies(features, &[]),
        )
}
