//! Who carries a Route's name and who must not any more: pure, save for reading caches in [`LabelerObserved::new`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route};
use kinglet_reconcile::{Context, Plan, controller_of, is_deleting, refers_to};

use crate::metadata;

/// Objects that carry the Route's name now.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    pub(super) revisions: BTreeSet<String>,
    pub(super) configurations: BTreeSet<String>,
}

/// Facts about one Route: everything it leads to or once led to, by name.
#[derive(Clone, Debug)]
pub(super) struct LabelerObserved {
    pub(super) route: Arc<Route>,
    pub(super) revisions: BTreeMap<String, Arc<Revision>>,
    pub(super) configurations: BTreeMap<String, Arc<Configuration>>,
    pub(super) now: Timestamp,
}

impl LabelerObserved {
    pub(super) fn new(context: &Context, route: Arc<Route>, noted: &Noted) -> Self {
        let namespace = route.namespace().to_owned();
        let (revision_cache, configuration_cache) = (
            context.cache::<Revision>(),
            context.cache::<Configuration>(),
        );
        let mut revision_names = noted.revisions.clone();
        let mut configuration_names = noted.configurations.clone();
        for target in route.spec.traffic.iter().chain(&route.status.traffic) {
            revision_names.insert(target.revision_name.clone());
            configuration_names.insert(target.configuration_name.clone());
        }
        let mut revisions = BTreeMap::new();
        let mut configurations = BTreeMap::new();
        for name in revision_names {
            if let Some(found) = revision_cache.get(&namespace, &name) {
                configuration_names.extend(owner(&found));
                revisions.insert(name, found);
            }
        }
        for name in configuration_names {
            if let Some(found) = configuration_cache.get(&namespace, &name) {
                let latest = &found.status.latest_created_revision_name;
                if let Some(latest) = revision_cache.get(&namespace, latest) {
                    revisions.insert(latest.name().to_owned(), latest);
                }
                configurations.insert(name, found);
            }
        }
        Self {
            route,
            revisions,
            configurations,
            now: context.now(),
        }
    }
}

/// The Configuration that made a Revision.
fn owner(revision: &Revision) -> Option<String> {
    controller_of(revision)
        .filter(|owner| refers_to::<Configuration>(owner))
        .map(|owner| owner.name.clone())
}

pub(super) fn decide(observed: &LabelerObserved) -> Plan {
    let (revisions, configurations) = wanted(observed);
    let may_let_go = is_deleting(&*observed.route)
        || observed
            .route
            .status
            .common
            .condition("Ready")
            .is_some_and(|ready| !ready.is_unknown());
    let mut plan = Plan::new();
    for (name, configuration) in &observed.configurations {
        let wanted = configurations.contains(name);
        if let Some(routes) = changed(
            configuration.annotation(keys::ROUTES),
            observed.route.name(),
            wanted,
            may_let_go,
        ) {
            let mut next = Configuration::clone(configuration);
            note(&mut next.metadata.annotations, &routes);
            plan.update(&**configuration, &next);
        }
    }
    for (name, revision) in &observed.revisions {
        let wanted = revisions.contains(name);
        let routes = changed(
            revision.annotation(keys::ROUTES),
            observed.route.name(),
            wanted,
            may_let_go,
        );
        let present = metadata::names(revision.annotation(keys::ROUTES));
        let leads_here = routes.as_ref().unwrap_or(&present);
        // A Revision that never had a route stays pending; others are either reached or in reserve.
        let state = if leads_here.is_empty() {
            "reserve"
        } else {
            "active"
        };
        let state_changes =
            revision.label(keys::ROUTING_STATE) != Some(state) && (wanted || routes.is_some());
        if routes.is_none() && !state_changes {
            continue;
        }
        let mut next = Revision::clone(revision);
        if let Some(routes) = &routes {
            note(&mut next.metadata.annotations, routes);
        }
        if state_changes {
            metadata::put(
                next.metadata.labels.get_or_insert_default(),
                keys::ROUTING_STATE,
                state,
            );
            let stamp = crate::stamp(observed.now);
            metadata::put(
                next.metadata.annotations.get_or_insert_default(),
                keys::ROUTING_STATE_MODIFIED,
                stamp,
            );
        }
        plan.update(&**revision, &next);
    }
    plan
}

/// Names of the Revisions and Configurations that the Route leads to.
fn wanted(observed: &LabelerObserved) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut revisions, mut configurations) = (BTreeSet::new(), BTreeSet::new());
    let route = &*observed.route;
    if is_deleting(route) {
        return (revisions, configurations);
    }
    for target in route.status.traffic.iter().chain(&route.spec.traffic) {
        if !target.configuration_name.is_empty() {
            configurations.insert(target.configuration_name.clone());
        }
        let Some(revision) = observed.revisions.get(&target.revision_name) else {
            continue;
        };
        revisions.insert(target.revision_name.clone());
        if let Some(owner) = owner(revision) {
            // A target that follows the latest will soon lead to the newest.
            if target.latest_revision == Some(true) {
                newest(observed, &owner, &mut revisions);
            }
            configurations.insert(owner);
        }
    }
    for target in &route.spec.traffic {
        if !target.configuration_name.is_empty() {
            newest(observed, &target.configuration_name, &mut revisions);
        }
    }
    (revisions, configurations)
}

fn newest(observed: &LabelerObserved, configuration: &str, revisions: &mut BTreeSet<String>) {
    let Some(configuration) = observed.configurations.get(configuration) else {
        return;
    };
    let name = &configuration.status.latest_created_revision_name;
    if observed.revisions.contains_key(name) {
        revisions.insert(name.clone());
    }
}

/// The list of Routes as it shall be, if it is different now.
fn changed(
    list: Option<&str>,
    route: &str,
    wanted: bool,
    may_let_go: bool,
) -> Option<BTreeSet<String>> {
    let mut names = metadata::names(list);
    let changes = if wanted {
        names.insert(route.to_owned())
    } else {
        may_let_go && names.remove(route)
    };
    changes.then_some(names)
}

fn note(annotations: &mut Option<metadata::Pairs>, routes: &BTreeSet<String>) {
    let annotations = annotations.get_or_insert_default();
    if routes.is_empty() {
        annotations.remove(keys::ROUTES);
    } else {
        metadata::put(annotations, keys::ROUTES, metadata::joined(routes));
    }
}
