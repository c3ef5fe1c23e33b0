//! Everything a Route's decision depends on, read from caches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kinglet_api::config::Configs;
use kinglet_api::networking::{Certificate, Ingress};
use kinglet_api::serving::{Configuration, Revision, Route};
use kinglet_api::{keys, names};
use kinglet_reconcile::{Context, Key, key_of, uid_of};

use super::hosts;
use super::rollout::Rollout;
use super::tracker::{Reference, Tracker};
use crate::configs::LiveConfigs;
use crate::generation_age::GenerationAges;

/// Facts about one Route.
#[derive(Clone, Debug)]
pub(super) struct RouteObserved {
    pub(super) route: Arc<Route>,
    pub(super) referenced: Referenced,
    pub(super) ingress: Option<Arc<Ingress>>,
    /// Certificates of its own, and those of the names that its own would have.
    pub(super) certificates: BTreeMap<String, Arc<Certificate>>,
    /// Placeholder Services that are there, whoever owns them, and those of tags that are no more.
    pub(super) services: BTreeMap<String, Arc<Service>>,
    pub(super) endpoints: BTreeMap<String, Arc<Endpoints>>,
    pub(super) configs: Arc<Configs>,
    pub(super) cluster_domain: Arc<str>,
    /// How long a verdict of False about this generation still waits.
    pub(super) hold: Duration,
    pub(super) now: Timestamp,
}

/// What the targets lead to, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Referenced {
    pub(super) configurations: BTreeMap<String, Arc<Configuration>>,
    pub(super) revisions: BTreeMap<String, Arc<Revision>>,
}

pub(super) fn observe(
    context: &Context,
    live: &LiveConfigs,
    tracker: &Tracker,
    ages: &GenerationAges,
    cluster_domain: &Arc<str>,
    route: Arc<Route>,
) -> RouteObserved {
    let namespace = route.namespace();
    let ingress = context
        .cache::<Ingress>()
        .get(namespace, &names::child(route.name(), ""));
    let referenced = Reader {
        context,
        tracker,
        route: key_of(&*route),
        needed: BTreeSet::new(),
    }
    .read(&route, ingress.as_deref());
    let configs = live.get();
    let (service_cache, endpoints_cache) =
        (context.cache::<Service>(), context.cache::<Endpoints>());
    let mut services: BTreeMap<String, Arc<Service>> = BTreeMap::new();
    for service in service_cache.by_owner(uid_of(&*route)) {
        services.insert(service.metadata.name.clone().unwrap_or_default(), service);
    }
    for name in hosts::names(&route, &configs).into_iter().flatten() {
        if let Some(service) = service_cache.get(namespace, &name) {
            services.insert(name, service);
        }
    }
    let endpoints = services
        .keys()
        .filter_map(|name| Some((name.clone(), endpoints_cache.get(namespace, name)?)))
        .collect();
    RouteObserved {
        certificates: certificates(context, &route),
        referenced,
        ingress,
        services,
        endpoints,
        configs,
        cluster_domain: Arc::clone(cluster_domain),
        hold: ages.hold(&*route, route.status.common.observed_generation),
        now: context.now(),
        route,
    }
}

fn certificates(context: &Context, route: &Route) -> BTreeMap<String, Arc<Certificate>> {
    let cache = context.cache::<Certificate>();
    let uid = uid_of(route);
    let own = cache.by_owner(uid);
    let tags = route.spec.traffic.iter().map(|target| target.tag.as_str());
    let named = tags
        .chain([""])
        .filter_map(|tag| cache.get(route.namespace(), &super::certificates::name(uid, tag)));
    let all = own.into_iter().chain(named);
    all.map(|found| (found.name().to_owned(), found)).collect()
}

/// Follows references, noting each before it is read.
struct Reader<'a> {
    context: &'a Context,
    tracker: &'a Tracker,
    route: Key,
    needed: BTreeSet<Reference>,
}

impl Reader<'_> {
    fn read(mut self, route: &Route, ingress: Option<&Ingress>) -> Referenced {
        let mut referenced = Referenced::default();
        for target in &route.spec.traffic {
            if !target.revision_name.is_empty() {
                let label = self.revision(&target.revision_name, &mut referenced);
                if let Some(configuration) = label {
                    self.configuration(&configuration, &mut referenced);
                }
            } else if let Some(latest) =
                self.configuration(&target.configuration_name, &mut referenced)
            {
                self.revision(&latest, &mut referenced);
            }
        }
        // A rollout under way still needs the revisions it comes from.
        let rollout =
            ingress.and_then(|ingress| Rollout::parse(ingress.annotation(keys::ROLLOUT)?));
        for revision in rollout.iter().flat_map(Rollout::revisions) {
            self.revision(revision, &mut referenced);
        }
        self.tracker.keep_only(&self.route, &self.needed);
        referenced
    }

    /// Reads a Configuration; gives its latest ready Revision.
    fn configuration(&mut self, name: &str, into: &mut Referenced) -> Option<String> {
        let key = Key::new(Arc::clone(&self.route.namespace), name);
        self.note(Reference::Configuration(key.clone()));
        let found = self.context.cache::<Configuration>().find(&key)?;
        let latest = found.status.latest_ready_revision_name.clone();
        into.configurations.insert(name.to_owned(), found);
        Some(latest).filter(|latest| !latest.is_empty())
    }

    /// Reads a Revision; gives the Configuration that it says it is from.
    fn revision(&mut self, name: &str, into: &mut Referenced) -> Option<String> {
        let key = Key::new(Arc::clone(&self.route.namespace), name);
        self.note(Reference::Revision(key.clone()));
        let found = self.context.cache::<Revision>().find(&key)?;
        let label = found.label(keys::CONFIGURATION).map(str::to_owned);
        into.revisions.insert(name.to_owned(), found);
        label
    }

    fn note(&mut self, reference: Reference) {
        self.tracker.add(&self.route, reference.clone());
        self.needed.insert(reference);
    }
}
