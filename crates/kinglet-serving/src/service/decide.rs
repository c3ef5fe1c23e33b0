//! What to do about one Service: pure.

use std::time::Duration;

use kinglet_api::conditions::{ConditionState, Conditions, ServiceCondition};
use kinglet_api::duck::Condition;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Route, RouteStatus, ServiceStatus, TrafficTarget};
use kinglet_reconcile::{Plan, is_controlled_by};

use super::children;
use super::observe::ServiceObserved;

const OUT_OF_DATE: &str = "OutOfDate";
const CONFIGURATION_AT_WORK: &str =
    "The Configuration is still working to reflect the latest desired specification.";
const ROUTE_AT_WORK: &str =
    "The Route is still working to reflect the latest desired specification.";

pub(super) fn decide(observed: &ServiceObserved) -> Plan {
    let mut plan = Plan::new();
    let mut conditions = ChildConditions::default();
    let mut status = observed.service.status.clone();
    let go_on = configuration(observed, &mut plan, &mut conditions, &mut status);
    if go_on && name_is_free(observed, &mut conditions) {
        route(observed, &mut plan, &mut conditions, &mut status);
    }
    if conditions.hold_failures(observed.hold) {
        // Not told yet, so not retried either: the next look is when the verdict is due.
        plan.error = None;
        plan.after(observed.hold);
    }
    status.common.conditions =
        conditions.conditions(&observed.service.status.common.conditions, observed.now);
    status.common.observed_generation = observed.service.generation();
    plan.status(&*observed.service, &status);
    plan
}

/// What was found out about the two children.
#[derive(Default)]
struct ChildConditions {
    configuration: Option<ConditionState>,
    route: Option<ConditionState>,
}

impl ChildConditions {
    /// While a generation is young, a failure reads as Knative's state before it looked: the children are at work
    /// (see [`crate::generation_age`]). Returns whether there was one to hold back.
    fn hold_failures(&mut self, hold: Duration) -> bool {
        if hold.is_zero() {
            return false;
        }
        let mut held = false;
        for (state, message) in [
            (&mut self.configuration, CONFIGURATION_AT_WORK),
            (&mut self.route, ROUTE_AT_WORK),
        ] {
            if matches!(state, Some(ConditionState::False(_))) {
                *state = Some(ConditionState::unknown_because(OUT_OF_DATE, message));
                held = true;
            }
        }
        held
    }

    /// Of two failures the Route's speaks for the Service, as in Knative. Its message carries the cause below.
    fn conditions(self, previous: &[Condition], now: jiff::Timestamp) -> Vec<Condition> {
        let Self {
            configuration,
            route,
        } = self;
        Conditions::new()
            .with_some(ServiceCondition::ConfigurationsReady, configuration)
            .with_some(ServiceCondition::RoutesReady, route)
            .finish(previous, now)
    }
}

/// Keeps the Configuration; whether to go on with the Route.
fn configuration(
    observed: &ServiceObserved,
    plan: &mut Plan,
    conditions: &mut ChildConditions,
    status: &mut ServiceStatus,
) -> bool {
    let service = &*observed.service;
    let name = service.name();
    let brings_name = service
        .spec
        .template
        .metadata
        .name
        .as_deref()
        .is_some_and(|name| !name.is_empty());
    let present = observed.configuration.as_deref();
    if present.is_some_and(|present| !is_controlled_by(present, service)) {
        let message = format!("There is an existing Configuration {name:?} that we do not own.");
        conditions.configuration = Some(ConditionState::false_because("NotOwned", message));
        plan.fail(
            true,
            format!("service: {name:?} does not own configuration: {name:?}"),
        );
        return false;
    }
    let desired = children::configuration(service, present);
    plan.ensure(present, &desired);
    let settled = match present {
        None => {
            plan.normal(
                service,
                "Created",
                format!("Created Configuration {name:?}"),
            );
            None
        }
        // A changed spec has not been looked at by its own controller yet.
        Some(present) => {
            Some(present).filter(|present| present.spec == desired.spec && is_current(present))
        }
    };
    let Some(present) = settled else {
        conditions.configuration = Some(ConditionState::unknown_because(
            OUT_OF_DATE,
            CONFIGURATION_AT_WORK,
        ));
        return !brings_name;
    };
    status
        .latest_created_revision_name
        .clone_from(&present.status.latest_created_revision_name);
    status
        .latest_ready_revision_name
        .clone_from(&present.status.latest_ready_revision_name);
    conditions.configuration = Some(mirror(present.status.common.condition("Ready")));
    true
}

fn is_current(configuration: &Configuration) -> bool {
    configuration.status.common.observed_generation == configuration.generation()
}

/// Whether the Revision name that the user brings is his to use.
fn name_is_free(observed: &ServiceObserved, conditions: &mut ChildConditions) -> bool {
    let (Some(namesake), Some(configuration)) = (&observed.namesake, &observed.configuration)
    else {
        return true;
    };
    let generation = namesake.label(keys::CONFIGURATION_GENERATION);
    let ours = is_controlled_by(&**namesake, &**configuration);
    let same = generation == Some(configuration.generation().to_string().as_str())
        || namesake.spec == observed.service.spec.template.spec;
    if ours && same {
        return true;
    }
    let message = format!(
        "The revision name {:?} is taken by a conflicting Revision, so traffic will not be migrated",
        namesake.name()
    );
    conditions.route = Some(ConditionState::false_because("RevisionNameTaken", message));
    false
}

fn route(
    observed: &ServiceObserved,
    plan: &mut Plan,
    conditions: &mut ChildConditions,
    status: &mut ServiceStatus,
) {
    let service = &*observed.service;
    let name = service.name();
    let present = observed.route.as_deref();
    if present.is_some_and(|present| !is_controlled_by(present, service)) {
        let message = format!("There is an existing Route {name:?} that we do not own.");
        conditions.route = Some(ConditionState::false_because("NotOwned", message));
        plan.fail(
            true,
            format!("service: {name:?} does not own route: {name:?}"),
        );
        return;
    }
    let desired = children::route(service, present);
    plan.ensure(present, &desired);
    let settled = match present {
        None => {
            plan.normal(service, "Created", format!("Created Route {name:?}"));
            None
        }
        Some(present) => Some(present).filter(|present| {
            present.spec == desired.spec
                && present.status.common.observed_generation == present.generation()
        }),
    };
    let Some(present) = settled else {
        conditions.route = Some(ConditionState::unknown_because(OUT_OF_DATE, ROUTE_AT_WORK));
        return;
    };
    let RouteStatus {
        common,
        url,
        address,
        traffic,
    } = &present.status;
    status.url.clone_from(url);
    status.address.clone_from(address);
    status.traffic.clone_from(traffic);
    let mut state = mirror(common.condition("Ready"));
    if state == ConditionState::True && !traffic_arrived(observed, present) {
        state = ConditionState::unknown_because(
            "TrafficNotMigrated",
            "Traffic is not yet migrated to the latest revision.",
        );
    }
    conditions.route = Some(state);
}

/// Whether the traffic that flows is the traffic wanted, with the latest ready Revision in place of the Configuration.
fn traffic_arrived(observed: &ServiceObserved, route: &Route) -> bool {
    let latest = observed
        .configuration
        .as_ref()
        .map_or("", |found| found.status.latest_ready_revision_name.as_str());
    let plain = |target: &TrafficTarget| {
        let mut plain = target.clone();
        plain.url = None;
        plain.latest_revision = None;
        if !plain.configuration_name.is_empty() {
            plain.configuration_name.clear();
            latest.clone_into(&mut plain.revision_name);
        }
        plain
    };
    let wanted = route.spec.traffic.iter().map(plain);
    let flowing = route.status.traffic.iter().map(plain);
    wanted.eq(flowing)
}

/// A child's `Ready`; that it is ready needs no reason.
fn mirror(ready: Option<&Condition>) -> ConditionState {
    match ConditionState::mirror(ready) {
        ConditionState::TrueBecause(_) => ConditionState::True,
        other => other,
    }
}
