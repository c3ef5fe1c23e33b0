//! What to do about one Route: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use kinglet_api::conditions::{ConditionState, Conditions, RouteCondition};
use kinglet_api::duck::Addressable;
use kinglet_api::keys;
use kinglet_api::names::service_host;
use kinglet_api::networking::Ingress;
use kinglet_api::serving::{RouteStatus, TrafficTarget};
use kinglet_reconcile::{Plan, is_controlled_by};

use super::certificates;
use super::hosts::{self, TagAddress};
use super::ingress;
use super::observe::RouteObserved;
use super::placeholder::{self, Obstacle};
use super::rollout::{self, Rollout};
use super::traffic::{self, RevisionTarget, Traffic};

pub(super) fn decide(observed: &RouteObserved) -> Plan {
    let mut plan = Plan::new();
    let route = &*observed.route;
    if !route
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|known| known == keys::ROUTE_FINALIZER)
    {
        // The labeler's; added here so that two controllers do not write one object at the same moment.
        plan.add_finalizer(route, keys::ROUTE_FINALIZER);
        plan.normal(
            route,
            "FinalizerUpdate",
            format!("Updated {:?} finalizers", route.name()),
        );
    }
    let mut status = route.status.clone();
    let mut conditions = RouteConditions::default();
    if status.common.observed_generation != route.generation() {
        conditions.ingress = Some(not_configured());
    }
    program(observed, &mut plan, &mut conditions, &mut status);
    let held = hold_failures(observed, &mut conditions, &mut plan);
    let RouteConditions {
        traffic,
        certificate,
        ingress,
    } = conditions;
    let all = Conditions::new().with_some(RouteCondition::CertificateProvisioned, certificate);
    // The one named last speaks for the Route.
    let all = if held {
        all.with_some(RouteCondition::AllTrafficAssigned, traffic)
            .with_some(RouteCondition::IngressReady, ingress)
    } else {
        all.with_some(RouteCondition::IngressReady, ingress)
            .with_some(RouteCondition::AllTrafficAssigned, traffic)
    };
    status.common.conditions = all.finish(&route.status.common.conditions, observed.now);
    status.common.observed_generation = route.generation();
    plan.status(route, &status);
    plan
}

/// What was found out; what was not told stays as it was. A problem with the traffic speaks for the Route.
#[derive(Default)]
struct RouteConditions {
    traffic: Option<ConditionState>,
    certificate: Option<ConditionState>,
    ingress: Option<ConditionState>,
}

/// While a generation is young, a failure reads as Knative's state before it looked: nothing is reconciled yet (see
/// [`crate::generation_age`]). Returns whether there was one to hold back.
fn hold_failures(
    observed: &RouteObserved,
    conditions: &mut RouteConditions,
    plan: &mut Plan,
) -> bool {
    let failed = |state: &Option<ConditionState>| matches!(state, Some(ConditionState::False(_)));
    if observed.hold.is_zero() || !(failed(&conditions.traffic) || failed(&conditions.ingress)) {
        return false;
    }
    // Not told yet, so not retried either: the next look is when the verdict is due.
    plan.error = None;
    plan.after(observed.hold);
    if failed(&conditions.traffic) {
        conditions.traffic = Some(ConditionState::unknown());
    }
    conditions.ingress = Some(not_configured());
    true
}

fn not_configured() -> ConditionState {
    ConditionState::unknown_because(
        "IngressNotConfigured",
        "Ingress has not yet been reconciled.",
    )
}

fn program(
    observed: &RouteObserved,
    plan: &mut Plan,
    conditions: &mut RouteConditions,
    status: &mut RouteStatus,
) {
    let mut tag_addresses = match hosts::tag_addresses(observed) {
        Ok(tag_addresses) => tag_addresses,
        Err(words) => {
            conditions.traffic = Some(ConditionState::false_because("ErrorConfig", words.clone()));
            plan.fail(false, words);
            return;
        }
    };
    let certificates = certificates::look(observed, &mut tag_addresses);
    status.url = tag_addresses
        .get("")
        .map(|tag_address| tag_address.url.clone());
    let traffic = match traffic::resolve(&observed.route, &observed.referenced) {
        Ok(traffic) => traffic,
        Err(state) => {
            conditions.traffic = Some(state);
            return;
        }
    };
    conditions.traffic = Some(ConditionState::True);
    conditions.certificate = certificates.state.clone();
    if certificates.foreign.is_some() {
        let words = conditions.certificate.as_ref().map(message_of);
        plan.fail(true, words.unwrap_or_default());
        return;
    }
    let local = service_host(
        observed.route.name(),
        observed.route.namespace(),
        &observed.cluster_domain,
    );
    status.address = Some(Addressable::url(format!("http://{local}")));
    if let Some(state) = foreign(observed, tag_addresses.values()) {
        plan.fail(true, message_of(&state));
        conditions.ingress = Some(state);
        return;
    }
    certificates::ensure(observed, &certificates, plan);
    let rollout = roll_out(observed, &traffic, plan);
    status.traffic = shown(&traffic, &tag_addresses, &rollout);
    let desired = match ingress::build(observed, &traffic, &tag_addresses, &rollout, &certificates)
    {
        Ok(desired) => desired,
        Err(words) => {
            conditions.traffic = Some(ConditionState::false_because("ErrorConfig", words.clone()));
            plan.fail(false, words);
            return;
        }
    };
    conditions.ingress = Some(ensure_ingress(observed, &desired, &rollout, plan));
    let gateway = observed
        .ingress
        .as_deref()
        .filter(|present| is_observed(present))
        .map(|present| &present.status);
    for tag_address in tag_addresses.values() {
        if let Err(obstacle) = placeholder::ensure(observed, tag_address, gateway, plan) {
            let state = obstacle_reach(&obstacle);
            plan.fail(true, message_of(&state));
            conditions.ingress = Some(state);
        }
    }
    placeholder::sweep(observed, &tag_addresses, plan);
}

/// Writes the Ingress; what it says becomes the Route's `IngressReady`.
fn ensure_ingress(
    observed: &RouteObserved,
    desired: &Ingress,
    rollout: &Rollout,
    plan: &mut Plan,
) -> ConditionState {
    let present = observed.ingress.as_deref();
    plan.ensure(present, desired);
    if present.is_none() {
        plan.normal(
            &*observed.route,
            "Created",
            format!("Created Ingress {:?}", desired.name()),
        );
    }
    // What the gateway says counts only if it speaks of what is wanted now.
    let current = present.filter(|present| present.spec == desired.spec && is_observed(present));
    match current {
        _ if rollout.is_under_way() => ConditionState::unknown_because(
            "RolloutInProgress",
            "A gradual rollout of the latest revision(s) is in progress.",
        ),
        Some(current) => mirrored(current),
        None => present
            .and_then(unserved_class)
            .unwrap_or_else(not_configured),
    }
}

/// What to say about an Ingress that nobody has looked at, because its class is not ours. A controller of that class
/// on this API server writes a status, and this is not said.
fn unserved_class(ingress: &Ingress) -> Option<ConditionState> {
    let looked_at = ingress.status.common.condition("Ready").is_some();
    let class = keys::INGRESS_CLASS
        .get(ingress.metadata.annotations.as_ref())
        .filter(|class| *class != keys::INGRESS_CLASS_KINGLET && !looked_at)?;
    let message = format!(
        "Ingress has not yet been reconciled. Nobody serves the ingress class {class:?}; the class served here is {:?}.",
        keys::INGRESS_CLASS_KINGLET
    );
    Some(ConditionState::unknown_because(
        "IngressNotConfigured",
        message,
    ))
}

fn is_observed(ingress: &Ingress) -> bool {
    ingress.status.common.observed_generation == ingress.generation()
}

fn mirrored(ingress: &Ingress) -> ConditionState {
    match ingress.status.common.condition("Ready") {
        None => not_configured(),
        ready => match ConditionState::mirror(ready) {
            ConditionState::TrueBecause(_) => ConditionState::True,
            other => other,
        },
    }
}

/// An object of a name that the Route needs, but of somebody else.
fn foreign<'p>(
    observed: &RouteObserved,
    tag_addresses: impl Iterator<Item = &'p TagAddress>,
) -> Option<ConditionState> {
    for tag_address in tag_addresses {
        if let Err(obstacle) = placeholder::check(observed, tag_address) {
            return Some(obstacle_reach(&obstacle));
        }
    }
    let ingress = observed
        .ingress
        .as_deref()
        .filter(|ingress| !is_controlled_by(*ingress, &*observed.route))?;
    Some(ConditionState::false_because(
        "NotOwned",
        format!(
            "There is an existing Ingress {:?} that we do not own.",
            ingress.name()
        ),
    ))
}

fn obstacle_reach(obstacle: &Obstacle) -> ConditionState {
    match obstacle {
        Obstacle::NotOwned(name) => ConditionState::false_because(
            "NotOwned",
            format!("There is an existing placeholder Service {name:?} that we do not own."),
        ),
        Obstacle::SeveralAddresses => ConditionState::false_because(
            "SeveralAddresses",
            "The gateway announces more than one address; exactly one can be led to.",
        ),
    }
}

fn message_of(state: &ConditionState) -> String {
    match state {
        ConditionState::True => String::new(),
        ConditionState::TrueBecause(why)
        | ConditionState::Unknown(why)
        | ConditionState::False(why) => why.message.clone(),
    }
}

/// The state of the gradual rollout after this look; looks again when the next step is due.
fn roll_out(observed: &RouteObserved, traffic: &Traffic, plan: &mut Plan) -> Rollout {
    let target = Rollout::target(traffic);
    let default_s =
        i64::try_from(observed.configs.network.rollout_duration.as_secs()).unwrap_or(i64::MAX);
    let duration_s = rollout::duration_s(&observed.route, default_s);
    let present = observed.ingress.as_deref();
    let previous = present.and_then(|present| Rollout::parse(present.annotation(keys::ROLLOUT)?));
    let Some((present, previous)) = present.zip(previous).filter(|_| duration_s > 0) else {
        return target;
    };
    let now_ns = i64::try_from(observed.now.as_nanosecond()).unwrap_or(i64::MAX);
    let ready = present.status.common.is_ready(present.generation());
    let settled = observed
        .route
        .status
        .common
        .condition("IngressReady")
        .is_some_and(kinglet_api::duck::Condition::is_true);
    let previous = if ready && !settled {
        previous.with_measured_steps(now_ns, duration_s)
    } else {
        previous
    };
    let next = previous.towards(target, now_ns);
    if let Some(at) = next.next_step_ns() {
        plan.after(Duration::from_nanos(
            at.saturating_sub(now_ns).max(0).unsigned_abs(),
        ));
    }
    next
}

/// `status.traffic`: the targets with their Revisions, those that follow the latest with every Revision of a rollout.
fn shown(
    traffic: &Traffic,
    tag_addresses: &BTreeMap<String, TagAddress>,
    rollout: &Rollout,
) -> Vec<TrafficTarget> {
    let mut shown: Vec<TrafficTarget> = Vec::new();
    let mut add = |target: &RevisionTarget, revision: &str, percent: Option<i64>| {
        let same = shown.iter_mut().find(|known| {
            known.tag == target.tag
                && known.revision_name == revision
                && known.latest_revision == target.latest_revision
        });
        if let Some(known) = same {
            known.percent = Some(known.percent.unwrap_or(0) + percent.unwrap_or(0));
            return;
        }
        let url = tag_addresses
            .get(&target.tag)
            .filter(|_| !target.tag.is_empty())
            .map(|tag_address| tag_address.url.clone());
        shown.push(TrafficTarget {
            tag: target.tag.clone(),
            revision_name: revision.to_owned(),
            latest_revision: target.latest_revision,
            percent,
            url,
            ..TrafficTarget::default()
        });
    };
    for target in &traffic.targets {
        let parts = rollout
            .parts("", &target.configuration)
            .filter(|parts| parts.len() > 1);
        match parts
            .filter(|_| target.latest_revision == Some(true) && target.percent.unwrap_or(0) > 0)
        {
            Some(parts) => {
                for part in parts {
                    add(target, &part.revision_name, Some(part.percent));
                }
            }
            None => add(target, &target.revision, target.percent),
        }
    }
    shown
}
