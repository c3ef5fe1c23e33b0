//! Placeholder Services: a name inside the cluster for a Route and each of its tags, leading to the local gateway.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::keys;
use kinglet_api::networking::{IngressStatus, LoadBalancerIngress, LoadBalancerStatus};
use kinglet_api::serving::Route;
use kinglet_reconcile::{Cascade, Plan, label, owner_reference};

use super::hosts::TagAddress;
use super::observe::RouteObserved;
use crate::metadata;

const H2C: &str = "kubernetes.io/h2c";

/// A new placeholder; until the gateway has an address it leads to the public host.
fn new(route: &Route, tag_address: &TagAddress) -> Service {
    let mut labels = metadata::without(route.metadata.labels.as_ref(), |key| {
        key == keys::VISIBILITY
    });
    metadata::put(&mut labels, keys::ROUTE, route.name());
    Service {
        metadata: ObjectMeta {
            name: Some(tag_address.name.clone()),
            namespace: route.metadata.namespace.clone(),
            labels: metadata::some(labels),
            annotations: metadata::some(metadata::without(
                route.metadata.annotations.as_ref(),
                |_| false,
            )),
            owner_references: Some(vec![owner_reference(route)]),
            ..ObjectMeta::default()
        },
        spec: Some(external_name(tag_address.host())),
        status: None,
    }
}

fn external_name(host: &str) -> ServiceSpec {
    ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some(host.to_owned()),
        session_affinity: Some("None".to_owned()),
        ports: Some(vec![port("http2", Some(H2C))]),
        ..ServiceSpec::default()
    }
}

fn port(name: &str, app_protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: 80,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(80)),
        app_protocol: app_protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}

/// Why a placeholder cannot be kept.
pub(super) enum Obstacle {
    /// Somebody else's Service has the name.
    NotOwned(String),
    /// The gateway announces more than one address.
    SeveralAddresses,
}

/// Whether every placeholder's name is the Route's to use.
pub(super) fn check(observed: &RouteObserved, tag_address: &TagAddress) -> Result<(), Obstacle> {
    match observed.services.get(&tag_address.name) {
        Some(present) if !kinglet_reconcile::is_controlled_by(&**present, &*observed.route) => {
            Err(Obstacle::NotOwned(tag_address.name.clone()))
        }
        _ => Ok(()),
    }
}

/// Creates the placeholder, or leads it to the gateway once that has an address.
pub(super) fn ensure(
    observed: &RouteObserved,
    tag_address: &TagAddress,
    gateway: Option<&IngressStatus>,
    plan: &mut Plan,
) -> Result<(), Obstacle> {
    let present = observed
        .services
        .get(&tag_address.name)
        .map(|service| &**service);
    let balancer = gateway.and_then(|status| balancer(status, present));
    let entrance = match balancer.map(|balancer| balancer.ingress.as_slice()) {
        None | Some([]) => None,
        Some([only]) => Some(only),
        Some(_) => return Err(Obstacle::SeveralAddresses),
    };
    let Some(present) = present else {
        let mut service = new(&observed.route, tag_address);
        if let Some(spec) = entrance.and_then(leading_to) {
            service.spec = Some(spec);
        }
        plan.create(&service);
        plan.normal(
            &*observed.route,
            "Created",
            format!("Created placeholder service {:?}", tag_address.name),
        );
        return Ok(());
    };
    let next = with_metadata_of(present, &new(&observed.route, tag_address));
    let Some((entrance, wanted)) =
        entrance.and_then(|entrance| Some((entrance, leading_to(entrance)?)))
    else {
        plan.update(present, &next);
        return Ok(());
    };
    redirect(present, next.clone(), wanted, plan);
    if !entrance.ip.is_empty() {
        let endpoints = endpoints(&next, &entrance.ip);
        plan.ensure(
            observed
                .endpoints
                .get(&tag_address.name)
                .map(|found| &**found),
            &endpoints,
        );
    }
    Ok(())
}

/// The Service with the labels and annotations that the Route has gained since. Those that the Route has lost stay, as
/// in Knative.
fn with_metadata_of(present: &Service, desired: &Service) -> Service {
    let union = |present: &Option<metadata::Pairs>, desired: &Option<metadata::Pairs>| {
        let mut all = present.clone().unwrap_or_default();
        all.extend(desired.clone().unwrap_or_default());
        metadata::some(all)
    };
    let mut next = present.clone();
    next.metadata.labels = union(&present.metadata.labels, &desired.metadata.labels);
    next.metadata.annotations = union(&present.metadata.annotations, &desired.metadata.annotations);
    next
}

/// The gateway inside, if there is one or the Service is for inside only; else the public one.
fn balancer<'s>(
    status: &'s IngressStatus,
    present: Option<&Service>,
) -> Option<&'s LoadBalancerStatus> {
    let local = present.and_then(|service| label(service, keys::VISIBILITY))
        == Some(keys::VISIBILITY_CLUSTER_LOCAL);
    match &status.private_load_balancer {
        Some(private) if local || !private.ingress.is_empty() => Some(private),
        _ if local => None,
        _ => status.public_load_balancer.as_ref(),
    }
}

fn leading_to(entrance: &LoadBalancerIngress) -> Option<ServiceSpec> {
    let plain = |port: ServicePort| ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        session_affinity: Some("None".to_owned()),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    if !entrance.ip.is_empty() {
        return Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            ..plain(port("http2", Some(H2C)))
        });
    }
    for host in [&entrance.domain_internal, &entrance.domain] {
        if !host.is_empty() {
            return Some(external_name(host));
        }
    }
    entrance.mesh_only.then(|| plain(port("http", None)))
}

/// Changes where a Service leads; between kinds that cannot be changed into each other it is made anew.
fn redirect(present: &Service, mut next: Service, wanted: ServiceSpec, plan: &mut Plan) {
    let none = ServiceSpec::default();
    let live = present.spec.as_ref().unwrap_or(&none);
    let (live_kind, wanted_kind) = (kind(live), kind(&wanted));
    if live_kind == wanted_kind {
        let spec = next.spec.get_or_insert_default();
        spec.external_name = wanted.external_name;
        spec.ports = wanted.ports;
        spec.session_affinity = wanted.session_affinity;
        plan.update(present, &next);
        return;
    }
    next.spec = Some(wanted);
    if live_kind == "ExternalName" {
        plan.update(present, &next);
        return;
    }
    next.status = None;
    next.metadata = ObjectMeta {
        name: present.metadata.name.clone(),
        namespace: present.metadata.namespace.clone(),
        labels: next.metadata.labels.take(),
        annotations: next.metadata.annotations.take(),
        owner_references: present.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    plan.delete(present, Cascade::Background);
    plan.create(&next);
}

fn kind(spec: &ServiceSpec) -> &'static str {
    match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => "ExternalName",
        (_, Some("None")) => "headless",
        _ => "ClusterIP",
    }
}

fn endpoints(service: &Service, ip: &str) -> Endpoints {
    let address = EndpointAddress {
        ip: ip.to_owned(),
        ..EndpointAddress::default()
    };
    let port = EndpointPort {
        name: Some("http2".to_owned()),
        port: 80,
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(H2C.to_owned()),
    };
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: service.metadata.labels.clone(),
            annotations: service.metadata.annotations.clone(),
            owner_references: service.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![address]),
            ports: Some(vec![port]),
            ..EndpointSubset::default()
        }]),
    }
}

/// Deletes placeholders of tags that are no more.
pub(super) fn sweep(
    observed: &RouteObserved,
    tag_addresses: &BTreeMap<String, TagAddress>,
    plan: &mut Plan,
) {
    for (name, service) in &observed.services {
        let kept = tag_addresses
            .values()
            .any(|tag_address| tag_address.name == *name);
        let ours = kinglet_reconcile::is_controlled_by(&**service, &*observed.route)
            && label(&**service, keys::ROUTE).is_some();
        if !kept && ours {
            plan.delete(&**service, Cascade::Background);
            if let Some(endpoints) = observed
                .endpoints
                .get(name)
                .filter(|found| kinglet_reconcile::is_controlled_by(&***found, &*observed.route))
            {
                plan.delete(&**endpoints, Cascade::Background);
            }
        }
    }
}
