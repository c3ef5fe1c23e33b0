//! Everything a Service's decision depends on, read from caches.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::serving::{Configuration, Revision, Route, Service};
use kinglet_reconcile::Context;

/// Facts about one Service.
#[derive(Clone, Debug)]
pub(super) struct ServiceObserved {
    pub(super) service: Arc<Service>,
    pub(super) configuration: Option<Arc<Configuration>>,
    pub(super) route: Option<Arc<Route>>,
    /// The Revision that has the name the template asks for.
    pub(super) namesake: Option<Arc<Revision>>,
    pub(super) now: Timestamp,
}

pub(super) fn observe(context: &Context, service: Arc<Service>) -> ServiceObserved {
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
        now: context.now(),
        service,
    }
}
