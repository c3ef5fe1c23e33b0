//! Where the Pods behind a Service are: EndpointSlices, the older Endpoints, and slices mirrored from Endpoints that
//! somebody writes by hand for a Service without a selector.
//!
//! Flow: Pod event -> Services that select it -> [`gather`](gather::gather) -> slices and Endpoints, each written only if
//! it differs. A slice holds at most 100 endpoints.

mod gather;
mod legacy;
mod mirror;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_reconcile::{Context, Controller, Key, Next, Plan, ReconcileError, key_of, label};

use crate::selectors::SelectorIndex;

/// Label that names the Service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who maintains a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The maintainer of slices of Services with a selector.
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The maintainer of slices mirrored from Endpoints.
const MIRROR_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Annotation with the time of the change that led to a write.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label of everything that belongs to a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Starts the three controllers.
pub(crate) fn start(context: &Context) {
    let index = SelectorIndex::default();
    let feed = index.clone();
    context.cache::<Service>().observe(move |change| {
        feed.follow(change, |service: &Service| {
            service.spec.as_ref().and_then(|spec| spec.selector.clone())
        });
    });
    for (name, reconcile) in [
        ("endpoint-slice-controller", EndpointsSource::Slices),
        ("endpoint-controller", EndpointsSource::Legacy),
    ] {
        let index = index.clone();
        Controller::<Service>::new(name)
            .watches::<Pod, _>(move |pod| index.matching(pod))
            .watches::<EndpointSlice, _>(move |slice| written_by(slice, SLICE_CONTROLLER))
            .watches::<Endpoints, _>(|endpoints| Some(key_of(endpoints)))
            .workers(2)
            .run(context, move |context, key| {
                reconcile_selected(context, key, reconcile)
            });
    }
    Controller::<Endpoints>::new("endpointslicemirroring-controller")
        .watches::<Service, _>(|service| Some(key_of(service)))
        .watches::<EndpointSlice, _>(|slice| written_by(slice, MIRROR_CONTROLLER))
        .workers(2)
        .run(context, mirrored);
}

#[derive(Clone, Copy)]
enum EndpointsSource {
    Slices,
    Legacy,
}

fn written_by(slice: &EndpointSlice, controller: &str) -> Option<Key> {
    let service =
        label(slice, SERVICE_NAME).filter(|_| label(slice, MANAGED_BY) == Some(controller))?;
    Some(Key::new(
        slice.metadata.namespace.as_deref().unwrap_or(""),
        service,
    ))
}

async fn reconcile_selected(
    context: Context,
    key: Key,
    which: EndpointsSource,
) -> Result<Next, ReconcileError> {
    let service = context.cache::<Service>().find(&key);
    let selector = service
        .as_ref()
        .and_then(|service| selector_of(service).cloned());
    let backends_by_ports = match (&service, &selector) {
        (Some(service), Some(selector)) => Some(gather::gather(
            service,
            &context.cache::<Pod>().select(&key.namespace, selector),
        )),
        _ => None,
    };
    let plan = match which {
        EndpointsSource::Slices => {
            let present = slices_of(&context, &key, SLICE_CONTROLLER);
            slices::decide(service.as_deref(), backends_by_ports.as_ref(), &present)
        }
        EndpointsSource::Legacy => {
            let present = context.cache::<Endpoints>().find(&key);
            legacy::decide(
                service.as_deref(),
                backends_by_ports.as_ref(),
                present.as_deref(),
            )
        }
    };
    context.apply(plan).await
}

async fn mirrored(context: Context, key: Key) -> Result<Next, ReconcileError> {
    let endpoints = context.cache::<Endpoints>().find(&key);
    let service = context.cache::<Service>().find(&key);
    let present = slices_of(&context, &key, MIRROR_CONTROLLER);
    let plan: Plan = mirror::decide(service.as_deref(), endpoints.as_deref(), &present);
    context.apply(plan).await
}

fn slices_of(context: &Context, key: &Key, controller: &str) -> Vec<Arc<EndpointSlice>> {
    context.cache::<EndpointSlice>().select(
        &key.namespace,
        [(SERVICE_NAME, &*key.name), (MANAGED_BY, controller)],
    )
}

fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    service
        .spec
        .as_ref()?
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

/// The Service's own labels, without those that are ours to set.
fn own_labels(labels: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let ours = [SERVICE_NAME, MANAGED_BY, HEADLESS, legacy::MANAGED_BY];
    labels
        .into_iter()
        .flatten()
        .filter(|(key, _)| !ours.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
