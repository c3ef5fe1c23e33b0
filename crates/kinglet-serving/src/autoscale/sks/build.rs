//! The Kubernetes objects of a ServerlessService, each built over the one seen so that the server's own fields
//! (addresses, families) and foreign metadata stay.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::keys;
use kinglet_api::networking::{Protocol, ServerlessService};
use kinglet_reconcile::owner_reference;

const HTTP1_PORT: i32 = 8012;
const H2C_PORT: i32 = 8013;
const TLS_PORT: i32 = 8112;
const AUTOSCALING_METRICS: (&str, i32) = ("http-autometric", 9090);
const USER_METRICS: (&str, i32) = ("http-usermetric", 9091);
const H2C: &str = "kubernetes.io/h2c";

/// The port of a queue-proxy or activator that speaks the protocol.
fn serving_port(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Http1 => HTTP1_PORT,
        Protocol::H2c => H2C_PORT,
    }
}

fn port_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http",
        Protocol::H2c => "http2",
    }
}

/// Name that lets Istio guess the protocol.
fn istio_port_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http-istio",
        Protocol::H2c => "http2-istio",
    }
}

pub(super) fn private_service(
    owner: &ServerlessService,
    observed: Option<&Service>,
    name: &str,
    selector: &BTreeMap<String, String>,
) -> Service {
    let protocol = owner.spec.protocol_type;
    let serving = serving_port(protocol);
    let ports = vec![
        port(
            port_name(protocol),
            80,
            IntOrString::Int(serving),
            h2c(protocol),
        ),
        port("https", 443, IntOrString::Int(TLS_PORT), None),
        named(AUTOSCALING_METRICS),
        named(USER_METRICS),
        port(
            istio_port_name(protocol),
            serving,
            IntOrString::Int(serving),
            None,
        ),
    ];
    service(
        owner,
        observed,
        name,
        "Private",
        ports,
        Some(selector.clone()),
    )
}

pub(super) fn public_service(owner: &ServerlessService, observed: Option<&Service>) -> Service {
    let protocol = owner.spec.protocol_type;
    let outside = match protocol {
        Protocol::Http1 => 80,
        Protocol::H2c => 81,
    };
    let ports = vec![
        port(
            port_name(protocol),
            outside,
            IntOrString::Int(serving_port(protocol)),
            h2c(protocol),
        ),
        port("https", 443, IntOrString::Int(TLS_PORT), None),
    ];
    service(owner, observed, owner.name(), "Public", ports, None)
}

fn service(
    owner: &ServerlessService,
    observed: Option<&Service>,
    name: &str,
    kind: &str,
    ports: Vec<ServicePort>,
    selector: Option<BTreeMap<String, String>>,
) -> Service {
    let mut desired = observed.cloned().unwrap_or_default();
    desired.metadata = metadata(
        owner,
        observed.map(|observed| &observed.metadata),
        name,
        kind,
    );
    let spec = desired.spec.get_or_insert_default();
    spec.ports = Some(ports);
    spec.selector = selector;
    desired
}

/// The public Endpoints, pointing at `pods`.
pub(super) fn endpoints_of_pods(
    owner: &ServerlessService,
    observed: Option<&Endpoints>,
    pods: &[EndpointAddress],
) -> Endpoints {
    let protocol = owner.spec.protocol_type;
    let ports = vec![
        endpoint_port(port_name(protocol), serving_port(protocol), h2c(protocol)),
        endpoint_port(
            istio_port_name(protocol),
            serving_port(protocol),
            h2c(protocol),
        ),
        endpoint_port("https", TLS_PORT, None),
    ];
    endpoints(owner, observed, pods.to_vec(), ports)
}

/// The public Endpoints, pointing at `activators`.
pub(super) fn endpoints_of_activators(
    owner: &ServerlessService,
    observed: Option<&Endpoints>,
    activators: Vec<EndpointAddress>,
) -> Endpoints {
    let protocol = owner.spec.protocol_type;
    let ports = vec![
        endpoint_port(port_name(protocol), serving_port(protocol), None),
        endpoint_port("https", TLS_PORT, None),
    ];
    endpoints(owner, observed, activators, ports)
}

fn endpoints(
    owner: &ServerlessService,
    observed: Option<&Endpoints>,
    addresses: Vec<EndpointAddress>,
    ports: Vec<EndpointPort>,
) -> Endpoints {
    let mut desired = observed.cloned().unwrap_or_default();
    desired.metadata = metadata(
        owner,
        observed.map(|observed| &observed.metadata),
        owner.name(),
        "Public",
    );
    desired.subsets = (!addresses.is_empty()).then(|| {
        vec![EndpointSubset {
            addresses: Some(addresses),
            not_ready_addresses: None,
            ports: Some(ports),
        }]
    });
    desired
}

/// Labels and annotations follow the ServerlessService's; what others added stays.
fn metadata(
    owner: &ServerlessService,
    observed: Option<&ObjectMeta>,
    name: &str,
    kind: &str,
) -> ObjectMeta {
    let mut metadata = observed.cloned().unwrap_or_default();
    metadata.name = Some(name.to_owned());
    metadata.namespace.clone_from(&owner.metadata.namespace);
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(owner.metadata.labels.clone().unwrap_or_default());
    labels.insert(keys::SERVERLESS_SERVICE.to_owned(), owner.name().to_owned());
    labels.insert(keys::SERVICE_TYPE.to_owned(), kind.to_owned());
    if let Some(annotations) = &owner.metadata.annotations {
        metadata
            .annotations
            .get_or_insert_default()
            .extend(annotations.clone());
    }
    metadata.owner_references = Some(vec![owner_reference(owner)]);
    metadata
}

fn port(name: &str, port: i32, target: IntOrString, app_protocol: Option<String>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port,
        target_port: Some(target),
        app_protocol,
        node_port: None,
    }
}

fn named((name, number): (&str, i32)) -> ServicePort {
    port(name, number, IntOrString::String(name.to_owned()), None)
}

fn endpoint_port(name: &str, port: i32, app_protocol: Option<String>) -> EndpointPort {
    EndpointPort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        app_protocol,
    }
}

fn h2c(protocol: Protocol) -> Option<String> {
    match protocol {
        Protocol::Http1 => None,
        Protocol::H2c => Some(H2C.to_owned()),
    }
}
