//! What to do about one ServerlessService: pure.

use k8s_openapi::api::core::v1::Endpoints;
use kinglet_api::conditions::{ConditionState, Conditions, ServerlessServiceCondition};
use kinglet_api::names;
use kinglet_api::networking::{ServerlessServiceMode, ServerlessServiceStatus};
use kinglet_decide::scale::subset;
use kinglet_reconcile::{Plan, is_controlled_by};

use super::build;
use super::observe::Seen;

const NOT_READY: &str = "K8s Service is not ready";

pub(super) fn decide(seen: &Seen) -> Plan {
    let owner = &*seen.owner;
    let mut plan = Plan::new();
    let private_name = names::private_service(owner.name());
    if let Some((kind, name)) = foreign(seen, &private_name) {
        let message = format!("Resource {name} of type {kind} is not owned by SKS");
        let broken = ConditionState::false_because("NotOwned", message.clone());
        plan.status(owner, &status(seen, &private_name, broken));
        plan.fail(true, message);
        return plan;
    }
    let Some(selector) = &seen.selector else {
        let target = &owner.spec.object_ref.name;
        let waiting = ConditionState::unknown_because("CreatingPrivateService", NOT_READY);
        plan.status(owner, &status(seen, &private_name, waiting));
        plan.fail(
            true,
            format!("there is no Deployment {target:?} whose pods could be selected"),
        );
        return plan;
    };
    let private = build::private_service(owner, seen.private.as_deref(), &private_name, selector);
    plan.ensure(seen.private.as_deref(), &private);
    plan.ensure(
        seen.public.as_deref(),
        &build::public_service(owner, seen.public.as_deref()),
    );
    plan.ensure(seen.endpoints.as_deref(), &public_endpoints(seen));
    let populated = if seen.ready.is_empty() {
        ConditionState::unknown_because("NoHealthyBackends", NOT_READY)
    } else {
        ConditionState::True
    };
    plan.status(owner, &status(seen, &private_name, populated));
    plan
}

/// Kind and name of a child that belongs to somebody else.
fn foreign<'a>(seen: &'a Seen, private_name: &'a str) -> Option<(&'static str, &'a str)> {
    let owner = &*seen.owner;
    let others = |object: Option<bool>| object == Some(false);
    if others(
        seen.private
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    ) {
        return Some(("Service", private_name));
    }
    if others(
        seen.public
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    ) {
        return Some(("Service", owner.name()));
    }
    others(
        seen.endpoints
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    )
    .then_some(("Endpoints", owner.name()))
}

/// Whether requests to the public Service go through the buffer. Without ready pods they must, without
/// activators they cannot.
fn proxies(seen: &Seen) -> bool {
    let asked = seen.owner.spec.mode == Some(ServerlessServiceMode::Proxy);
    !seen.activators.is_empty() && (asked || seen.ready.is_empty())
}

fn public_endpoints(seen: &Seen) -> Endpoints {
    let owner = &*seen.owner;
    let present = seen.endpoints.as_deref();
    if !proxies(seen) {
        return build::endpoints_of_pods(owner, present, &seen.ready);
    }
    let addresses: Vec<String> = seen
        .activators
        .iter()
        .map(|activator| activator.ip.to_string())
        .collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let count = usize::try_from(owner.spec.num_activators)
        .ok()
        .filter(|count| *count > 0)
        .unwrap_or(all.len());
    let chosen = subset::choose(&all, count, owner.name());
    let activators = seen
        .activators
        .iter()
        .zip(&addresses)
        .filter(|(_, address)| chosen.contains(&address.as_str()));
    build::endpoints_of_activators(owner, present, activators.map(|(activator, _)| activator))
}

fn status(seen: &Seen, private_name: &str, populated: ConditionState) -> ServerlessServiceStatus {
    let owner = &*seen.owner;
    let mut status = owner.status.clone();
    status.common.observed_generation = owner.generation();
    let owned = !matches!(populated, ConditionState::False(_)) && seen.selector.is_some();
    if owned {
        private_name.clone_into(&mut status.private_service_name);
        owner.name().clone_into(&mut status.service_name);
    }
    let buffered = owner.spec.mode == Some(ServerlessServiceMode::Proxy) || seen.ready.is_empty();
    let why = kinglet_api::conditions::ConditionDetail {
        reason: "ActivatorEndpointsPopulated".to_owned(),
        message: "Revision is backed by Activator".to_owned(),
    };
    let buffered = if buffered {
        ConditionState::TrueBecause(why)
    } else {
        ConditionState::False(why)
    };
    status.common.conditions = Conditions::new()
        .with(ServerlessServiceCondition::EndpointsPopulated, populated)
        .with_some(
            ServerlessServiceCondition::ActivatorEndpointsPopulated,
            owned.then_some(buffered),
        )
        .finish(&owner.status.common.conditions, seen.now);
    status
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
