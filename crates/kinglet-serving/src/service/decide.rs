//! What to do about one Service: pure.

use kinglet_api::conditions::{ConditionState, Conditions, ServiceCondition};
use kinglet_api::duck::Condition;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Route, RouteStatus, ServiceStatus, TrafficTarget};
use kinglet_reconcile::{Plan, is_controlled_by};

use super::children;
use super::observe::Seen;

const OUT_OF_DATE: &str = "OutOfDate";

pub(super) fn decide(seen: &Seen) -> Plan {
    let mut plan = Plan::new();
    let mut said = Said::default();
    let mut status = seen.service.status.clone();
    let go_on = configuration(seen, &mut plan, &mut said, &mut status);
    if go_on && name_is_free(seen, &mut said) {
        route(seen, &mut plan, &mut said, &mut status);
    }
    status.common.conditions = said.conditions(&seen.service.status.common.conditions, seen.now);
    status.common.observed_generation = seen.service.generation();
    plan.status(&*seen.service, &status);
    plan
}

/// What was found out about the two children.
#[derive(Default)]
struct Said {
    configuration: Option<ConditionState>,
    route: Option<ConditionState>,
}

impl Said {
    /// The one told last speaks for the Service. That is the Route, unless the Configuration has failed: then the
    /// Route can only repeat it.
    fn conditions(self, previous: &[Condition], now: jiff::Timestamp) -> Vec<Condition> {
        let Self {
            configuration,
            route,
        } = self;
        let failed = matches!(configuration, Some(ConditionState::False(_)));
        let all = Conditions::new();
        let all = if failed {
            all.with_some(ServiceCondition::RoutesReady, route)
                .with_some(ServiceCondition::ConfigurationsReady, configuration)
        } else {
            all.with_some(ServiceCondition::ConfigurationsReady, configuration)
                .with_some(ServiceCondition::RoutesReady, route)
        };
        all.finish(previous, now)
    }
}

/// Keeps the Configuration; whether to go on with the Route.
fn configuration(
    seen: &Seen,
    plan: &mut Plan,
    said: &mut Said,
    status: &mut ServiceStatus,
) -> bool {
    let service = &*seen.service;
    let name = service.name();
    let brings_name = service
        .spec
        .template
        .metadata
        .name
        .as_deref()
        .is_some_and(|name| !name.is_empty());
    let present = seen.configuration.as_deref();
    if present.is_some_and(|present| !is_controlled_by(present, service)) {
        let message = format!("There is an existing Configuration {name:?} that we do not own.");
        said.configuration = Some(ConditionState::false_because("NotOwned", message));
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
        let message =
            "The Configuration is still working to reflect the latest desired specification.";
        said.configuration = Some(ConditionState::unknown_because(OUT_OF_DATE, message));
        return !brings_name;
    };
    status
        .latest_created_revision_name
        .clone_from(&present.status.latest_created_revision_name);
    status
        .latest_ready_revision_name
        .clone_from(&present.status.latest_ready_revision_name);
    said.configuration = Some(mirror(present.status.common.condition("Ready")));
    true
}

fn is_current(configuration: &Configuration) -> bool {
    configuration.status.common.observed_generation == configuration.generation()
}

/// Whether the Revision name that the user brings is his to use.
fn name_is_free(seen: &Seen, said: &mut Said) -> bool {
    let (Some(namesake), Some(configuration)) = (&seen.namesake, &seen.configuration) else {
        return true;
    };
    let generation = namesake.label(keys::CONFIGURATION_GENERATION);
    let ours = is_controlled_by(&**namesake, &**configuration);
    let same = generation == Some(configuration.generation().to_string().as_str())
        || namesake.spec == seen.service.spec.template.spec;
    if ours && same {
        return true;
    }
    let message = format!(
        "The revision name {:?} is taken by a conflicting Revision, so traffic will not be migrated",
        namesake.name()
    );
    said.route = Some(ConditionState::false_because("RevisionNameTaken", message));
    false
}

fn route(seen: &Seen, plan: &mut Plan, said: &mut Said, status: &mut ServiceStatus) {
    let service = &*seen.service;
    let name = service.name();
    let present = seen.route.as_deref();
    if present.is_some_and(|present| !is_controlled_by(present, service)) {
        let message = format!("There is an existing Route {name:?} that we do not own.");
        said.route = Some(ConditionState::false_because("NotOwned", message));
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
        let message = "The Route is still working to reflect the latest desired specification.";
        said.route = Some(ConditionState::unknown_because(OUT_OF_DATE, message));
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
    let mut reach = mirror(common.condition("Ready"));
    if reach == ConditionState::True && !traffic_arrived(seen, present) {
        reach = ConditionState::unknown_because(
            "TrafficNotMigrated",
            "Traffic is not yet migrated to the latest revision.",
        );
    }
    said.route = Some(reach);
}

/// Whether the traffic that flows is the traffic wanted, with the latest ready Revision in place of the Configuration.
fn traffic_arrived(seen: &Seen, route: &Route) -> bool {
    let latest = seen
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
