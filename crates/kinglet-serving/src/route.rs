//! Route: from traffic targets to an Ingress, a placeholder Service per name, and URLs.
//!
//! Flow: the Route, something it refers to or its Ingress changed -> [`observe`] (targets, hosts) -> [`decide`] ->
//! Ingress, placeholder Services, status.
//! Always: a bad target leaves what is programmed alone; a new Revision gets traffic only when it is ready; the
//! Route is Ready only when the gateway has what the Ingress says.

mod certificates;
mod decide;
mod hosts;
mod ingress;
mod observe;
mod placeholder;
mod rollout;
mod tracker;
mod traffic;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service};
use kinglet_api::networking::{Certificate, Ingress};
use kinglet_api::serving::{Configuration, Revision, Route};
use kinglet_reconcile::{Context, Controller, Next, is_deleting, key_of, name_of};

use crate::configs::{self, LiveConfigs};
use crate::generation_age::GenerationAges;
use tracker::{Reference, Tracker};

const WORKERS: usize = 4;
/// ConfigMaps whose change can change a Route's hosts or Ingress.
const CONCERNING: [&str; 3] = ["config-network", "config-domain", "config-features"];

pub(crate) use hosts::public_hosts;

/// Starts the controller.
pub fn start(context: &Context, live: LiveConfigs, cluster_domain: Arc<str>) {
    let tracker = Tracker::default();
    let ages = GenerationAges::default();
    let (of_configuration, of_revision) = (tracker.clone(), tracker.clone());
    let all = context.cache::<Route>();
    Controller::<Route>::new("route-controller")
        .owns::<Service>()
        .owns::<Ingress>()
        .owns::<Certificate>()
        .reads::<Endpoints>()
        .watches::<Configuration, _>(move |object| {
            of_configuration.routes_to(&Reference::Configuration(key_of(object)))
        })
        .watches::<Revision, _>(move |object| {
            of_revision.routes_to(&Reference::Revision(key_of(object)))
        })
        .watches::<ConfigMap, _>(move |map| {
            let concerned = configs::is_ours(map) && CONCERNING.contains(&name_of(map));
            let all = if concerned { all.all() } else { Vec::new() };
            all.into_iter().map(|route| key_of(&*route))
        })
        .workers(WORKERS)
        .reports_errors()
        .run(context, move |context, key| {
            let (live, tracker, ages) = (live.clone(), tracker.clone(), ages.clone());
            let cluster_domain = Arc::clone(&cluster_domain);
            async move {
                let Some(route) = context
                    .cache::<Route>()
                    .find(&key)
                    .filter(|found| !is_deleting(&**found))
                else {
                    tracker.forget(&key);
                    ages.forget(&key);
                    return Ok(Next::Done);
                };
                let observed =
                    observe::observe(&context, &live, &tracker, &ages, &cluster_domain, route);
                crate::outcome::apply(&context, &*observed.route, decide::decide(&observed)).await
            }
        });
}
