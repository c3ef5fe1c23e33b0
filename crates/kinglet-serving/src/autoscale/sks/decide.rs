//! What to do about one ServerlessService: pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use kinglet_api::conditions::{ConditionState, Conditions, ServerlessServiceCondition};
use kinglet_api::names;
use kinglet_api::networking::{ServerlessServiceMode, ServerlessServiceStatus};
use kinglet_decide::scale::subset;
use kinglet_reconcile::{Plan, is_controlled_by};

use super::build;
use super::observe::ServerlessServiceObserved;

const NOT_READY: &str = "K8s Service is not ready";
/// The Deployment is made before the ServerlessService. When both go, the garbage collector often takes the Deployment first,
/// which is no error.
const NO_DEPLOYMENT_RETRY: Duration = Duration::from_secs(1);

pub(super) fn decide(observed: &ServerlessServiceObserved) -> Plan {
    let owner = &*observed.owner;
    let mut plan = Plan::new();
    let private_name = names::private_service(owner.name());
    if let Some((kind, name)) = foreign(observed, &private_name) {
        let message = format!("Resource {name} of type {kind} is not owned by SKS");
        let broken = ConditionState::false_because("NotOwned", message.clone());
        plan.status(owner, &status(observed, &private_name, broken));
        plan.fail(true, message);
        return plan;
    }
    let Some(selector) = &observed.selector else {
        let waiting = ConditionState::unknown_because("CreatingPrivateService", NOT_READY);
        plan.status(owner, &status(observed, &private_name, waiting));
        plan.after(NO_DEPLOYMENT_RETRY);
        return plan;
    };
    let private =
        build::private_service(owner, observed.private.as_deref(), &private_name, selector);
    plan.ensure(observed.private.as_deref(), &private);
    plan.ensure(
        observed.public.as_deref(),
        &build::public_service(owner, observed.public.as_deref()),
    );
    plan.ensure(observed.endpoints.as_deref(), &public_endpoints(observed));
    let populated = if observed.ready.is_empty() {
        ConditionState::unknown_because("NoHealthyBackends", NOT_READY)
    } else {
        ConditionState::True
    };
    plan.status(owner, &status(observed, &private_name, populated));
    plan
}

/// Kind and name of a child that belongs to somebody else.
fn foreign<'a>(
    observed: &'a ServerlessServiceObserved,
    private_name: &'a str,
) -> Option<(&'static str, &'a str)> {
    let owner = &*observed.owner;
    let others = |object: Option<bool>| object == Some(false);
    if others(
        observed
            .private
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    ) {
        return Some(("Service", private_name));
    }
    if others(
        observed
            .public
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    ) {
        return Some(("Service", owner.name()));
    }
    others(
        observed
            .endpoints
            .as_ref()
            .map(|found| is_controlled_by(&**found, owner)),
    )
    .then_some(("Endpoints", owner.name()))
}

/// Whether requests to the public Service go through the buffer. Without ready pods they must, without
/// activators they cannot.
fn proxies(observed: &ServerlessServiceObserved) -> bool {
    let asked = observed.owner.spec.mode == Some(ServerlessServiceMode::Proxy);
    !observed.activators.is_empty() && (asked || observed.ready.is_empty())
}

fn public_endpoints(observed: &ServerlessServiceObserved) -> Endpoints {
    let owner = &*observed.owner;
    let present = observed.endpoints.as_deref();
    if !proxies(observed) {
        return build::endpoints_of_pods(owner, present, &observed.ready);
    }
    let addresses = observed.activators.iter().map(|address| &*address.ip);
    let all: Vec<&str> = addresses.collect();
    let count = usize::try_from(owner.spec.num_activators)
        .ok()
        .filter(|count| *count > 0)
        .unwrap_or(all.len());
    let chosen = subset::choose(&all, count, owner.name());
    let activators = observed
        .activators
        .iter()
        .filter(|address| chosen.contains(&&*address.ip))
        .cloned();
    build::endpoints_of_activators(owner, present, activators.collect())
}

fn status(
    observed: &ServerlessServiceObserved,
    private_name: &str,
    populated: ConditionState,
) -> ServerlessServiceStatus {
    let owner = &*observed.owner;
    let mut status = owner.status.clone();
    status.common.observed_generation = owner.generation();
    let owned = !matches!(populated, ConditionState::False(_)) && observed.selector.is_some();
    if owned {
        private_name.clone_into(&mut status.private_service_name);
        owner.name().clone_into(&mut status.service_name);
    }
    let buffered =
        owner.spec.mode == Some(ServerlessServiceMode::Proxy) || observed.ready.is_empty();
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
        .finish(&owner.status.common.conditions, observed.now);
    status
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
