//! The two objects that a Service owns, as they shall be.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, ConfigurationSpec, Route, RouteSpec, Service};
use kinglet_reconcile::{owner_reference, uid_of};

use crate::metadata::{self, LAST_APPLIED, Pairs};

pub(super) fn configuration(service: &Service, observed: Option<&Configuration>) -> Configuration {
    let name = service.name();
    let mut labels = metadata::without(service.metadata.labels.as_ref(), |_| false);
    metadata::put(&mut labels, keys::SERVICE, name);
    metadata::put(&mut labels, keys::SERVICE_UID, uid_of(service));
    let mut annotations = metadata::without(service.metadata.annotations.as_ref(), |key| {
        key == LAST_APPLIED || keys::ROLLOUT_DURATION.all().contains(&key)
    });
    let mut routes =
        metadata::names(observed.and_then(|observed| observed.annotation(keys::ROUTES)));
    routes.insert(name.to_owned());
    metadata::put(&mut annotations, keys::ROUTES, metadata::joined(&routes));
    Configuration {
        metadata: child(
            service,
            observed.map(|observed| &observed.metadata),
            labels,
            annotations,
        ),
        spec: ConfigurationSpec {
            template: service.spec.template.clone(),
        },
        ..Configuration::default()
    }
}

pub(super) fn route(service: &Service, observed: Option<&Route>) -> Route {
    let mut labels = metadata::without(service.metadata.labels.as_ref(), |_| false);
    metadata::put(&mut labels, keys::SERVICE, service.name());
    let annotations = metadata::without(service.metadata.annotations.as_ref(), |key| {
        key == LAST_APPLIED
    });
    let mut traffic = service.spec.traffic.clone();
    for target in traffic
        .iter_mut()
        .filter(|target| target.revision_name.is_empty())
    {
        service.name().clone_into(&mut target.configuration_name);
    }
    Route {
        metadata: child(
            service,
            observed.map(|observed| &observed.metadata),
            labels,
            annotations,
        ),
        spec: RouteSpec { traffic },
        ..Route::default()
    }
}

fn child(
    service: &Service,
    observed: Option<&ObjectMeta>,
    labels: Pairs,
    annotations: Pairs,
) -> ObjectMeta {
    let base = match observed {
        Some(observed) => observed.clone(),
        None => ObjectMeta {
            name: Some(service.name().to_owned()),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
    };
    ObjectMeta {
        labels: metadata::some(labels),
        annotations: metadata::some(annotations),
        ..base
    }
}
