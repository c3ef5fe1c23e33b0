//! What to do about one channel: pure.

use k8s_openapi::api::core::v1::Service;
use kinglet_api::conditions::ConditionState;
use kinglet_api::conditions::eventing::{self as states, reason};
use kinglet_api::duck::{ConditionStatus, SubscriberStatus};
use kinglet_api::names;
use kinglet_reconcile::{Plan, is_controlled_by};

use super::kinds::{Facts, PhysicalChannel};
use super::observe::PhysicalObserved;
use crate::addresses;
use crate::data_plane::ChannelInForce;

/// The channel as the data plane shall have it.
pub(super) fn in_force<K: PhysicalChannel>(observed: &PhysicalObserved<K>) -> ChannelInForce {
    let auto_create = observed.configs.features.eventtype_auto_create.is_on();
    ChannelInForce {
        spec: observed.channel.channelable().clone(),
        ordered: observed.ordered.clone(),
        asynchronous: observed.channel.is_asynchronous(),
        retention: observed.channel.retention(),
        auto_event_types: auto_create && !observed.of_broker,
    }
}

/// `refused` is what the data plane says against the channel; without, it is in force with all its subscribers.
pub(super) fn decide<K: PhysicalChannel>(
    observed: &PhysicalObserved<K>,
    refused: Option<String>,
) -> Plan {
    let channel = &*observed.channel;
    let mut plan = Plan::new();
    let mut status = channel.status().clone();
    status.subscribers = subscribers(observed, refused.as_deref());
    if let Some(why) = &refused {
        plan.fail(true, why);
    }
    let own = K::own(&Facts {
        service: observed.service,
        endpoint: observed.endpoint,
        refused,
    });
    let service = service(observed, &mut plan);
    let resolved = observed.dead_letter.as_ref();
    status.delivery = addresses::delivery_status(resolved.and_then(|sink| sink.as_ref().ok()));
    let dead_letter = match resolved {
        None => states::no_dead_letter_sink(),
        Some(Ok(_)) => ConditionState::True,
        Some(Err(why)) => {
            plan.fail(false, why);
            states::dead_letter_sink_unresolved(why)
        }
    };
    let host = names::service_host(
        &names::channel_service(&observed.key.name),
        &observed.key.namespace,
        &observed.cluster_domain,
    );
    status.addresses = addresses::one(format!("http://{host}"));
    let features = &observed.configs.features;
    let conditions = own
        .with(K::ADDRESSABLE, addresses::addressable(features))
        .with(K::CHANNEL_SERVICE, service)
        .with(K::DEAD_LETTER, dead_letter)
        .with(K::POLICIES, states::event_policies(features, &[]));
    let before = &channel.status().common.conditions;
    status.common.conditions = conditions.finish(before, observed.now);
    status.common.observed_generation = channel.meta().generation.unwrap_or_default();
    plan.status(channel, &status);
    plan
}

/// Makes the channel's Service, or makes it as it shall be.
fn service<K: PhysicalChannel>(observed: &PhysicalObserved<K>, plan: &mut Plan) -> ConditionState {
    let channel = &*observed.channel;
    let wanted = addresses::channel_service(
        channel,
        &observed.key,
        K::DISPATCHER,
        K::ROLE,
        &observed.cluster_domain,
    );
    let Some(found) = observed.own_service.as_deref() else {
        plan.create(&wanted);
        return ConditionState::True;
    };
    if !is_controlled_by(found, channel) {
        let words = format!(
            "{} {}/{} does not own Service {:?}",
            K::kind(&()),
            observed.key.namespace,
            observed.key.name,
            names::channel_service(&observed.key.name)
        );
        plan.fail(false, &words);
        return ConditionState::false_because(reason::CHANNEL_SERVICE_FAILED, words);
    }
    plan.update(found, &mended(found, &wanted));
    ConditionState::True
}

/// What was found, with what decides where it leads as wanted; the API server's own additions stay.
fn mended(found: &Service, wanted: &Service) -> Service {
    let mut mended = found.clone();
    mended
        .metadata
        .labels
        .get_or_insert_default()
        .extend(wanted.metadata.labels.clone().unwrap_or_default());
    let (spec, wanted) = (mended.spec.get_or_insert_default(), wanted.spec.as_ref());
    spec.type_ = wanted.and_then(|wanted| wanted.type_.clone());
    spec.external_name = wanted.and_then(|wanted| wanted.external_name.clone());
    spec.ports = wanted.and_then(|wanted| wanted.ports.clone());
    mended
}

fn subscribers<K: PhysicalChannel>(
    observed: &PhysicalObserved<K>,
    refused: Option<&str>,
) -> Vec<SubscriberStatus> {
    let all = observed.channel.channelable().subscribers.iter();
    all.map(|one| SubscriberStatus {
        uid: one.uid.clone(),
        observed_generation: one.generation,
        ready: Some(match refused {
            None => ConditionStatus::True,
            Some(_) => ConditionStatus::False,
        }),
        message: refused.unwrap_or_default().to_owned(),
        auth: None,
    })
    .collect()
}
