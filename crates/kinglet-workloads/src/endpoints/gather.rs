//! From Pods to endpoints: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// A port as endpoints show it, resolved for a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResolvedPort {
    pub(super) name: Option<String>,
    pub(super) port: i32,
    pub(super) protocol: String,
    pub(super) app_protocol: Option<String>,
}

/// One Pod behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend {
    pub(super) address: String,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) hostname: Option<String>,
    pub(super) node_name: Option<String>,
    pub(super) target: ObjectReference,
}

/// Backends grouped by the ports they have in common (named ports may differ from Pod to Pod), in the Service's order.
pub(super) type BackendsByPorts = BTreeMap<Vec<ResolvedPort>, Vec<Backend>>;

/// Everything behind a Service. Pods are taken in the order of their names.
pub(super) fn gather(service: &Service, pods: &[Arc<Pod>]) -> BackendsByPorts {
    let spec = service.spec.clone().unwrap_or_default();
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut out = BackendsByPorts::new();
    for pod in pods.iter().filter(|pod| !pods::is_terminal(pod)) {
        let Some(address) = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.clone())
            .filter(|ip| !ip.is_empty())
        else {
            continue;
        };
        let ports: Vec<ResolvedPort> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| resolve(port, pod))
            .collect();
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let serving = pods::is_ready(pod);
        let of_pod = pod.spec.as_ref();
        let subdomain = of_pod.and_then(|spec| spec.subdomain.as_deref());
        let backend = Backend {
            address,
            ready: publish || (serving && !terminating),
            serving,
            terminating,
            hostname: of_pod
                .and_then(|spec| spec.hostname.clone())
                .filter(|_| subdomain == service.metadata.name.as_deref()),
            node_name: pods::node_of(pod).map(str::to_owned),
            target: ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            },
        };
        out.entry(ports).or_default().push(backend);
    }
    out
}

/// The port on a Pod, or nothing when the Pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<ResolvedPort> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named(pod, name, &protocol)?,
    };
    Some(ResolvedPort {
        name: port.name.clone(),
        port: number,
        protocol,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|port| port.container_port)
}
