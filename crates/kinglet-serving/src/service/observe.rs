//! Everything a Service's decision depends on, read from caches.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::serving::{Configuration, Revision, Route, Service};
use kinglet_reconcile::Context;

use crate::generation_age::GenerationAges;

/// Facts about one Service.
#[derive(Clone, Debug)]
pub(super) struct ServiceObserved {
    pub(super) service: Arc<Service>,
    pub(super) configuration: Option<Arc<Configuration>>,
    pub(super) route: Option<Arc<Route>>,
    /// The Revision that has the name the template asks for.
    pub(super) namesake: Option<Arc<Revision>>,
    /// How long a verdict of False about this generation still waits.
    pub(super) hold: Duration,
    pub(super) now: Timestamp,
}

pub(super) fn observe(
    context: &Context,
    ages: &GenerationAges,
    service: Arc<Service>,
) -> ServiceObserved {
    let (namespace, name) = (service.namespace(), service.name());
    let wanted = service
        .spec
        .template
        .metadata
        .name
        .as_deref()
        .filter(|name| !name.is_empty());
    ServiceObserved {
        configuration: context.cache::<Configuration>().get(namespace, name),
        route: context.cache::<Route>().get(namespace, name),
        namesake: wanted.and_then(|wanted| context.cache::<Revision>().get(namespace, wanted)),
        hold: ages.hold(&*service, service.status.common.observed_generation),
        now: context.now(),
        service,
    }
}
