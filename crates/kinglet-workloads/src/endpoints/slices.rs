//! EndpointSlices of a Service with a selector: pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_reconcile::{Cascade, Plan, owner_reference};

use super::gather::{Backend, BackendsByPorts, ResolvedPort};
use super::{
    HEADLESS, MANAGED_BY, SERVICE_NAME, SLICE_CONTROLLER, TRIGGER_TIME, is_headless, own_labels,
};

/// Endpoints per slice, as in Kubernetes.
const ENDPOINTS_MAX: usize = 100;

/// Makes the slices equal what was backends_by_ports; without a Service or a selector there are none.
pub(super) fn decide(
    service: Option<&Service>,
    backends_by_ports: Option<&BackendsByPorts>,
    present: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::new();
    let (Some(service), Some(backends_by_ports)) = (service, backends_by_ports) else {
        // The garbage collector takes the slices of a Service that is gone; a selector may also just have been removed.
        for slice in present.iter().filter(|_| service.is_some()) {
            plan.delete(&**slice, Cascade::Background);
        }
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut free: Vec<&Arc<EndpointSlice>> = present
        .iter()
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    let mut missing = Vec::new();
    for (shape, endpoints) in wanted(backends_by_ports) {
        // A slice keeps its ports, so that watchers see endpoints come and go and not slices.
        let found = free.iter().position(|slice| {
            slice.address_type == shape.family
                && slice.ports.as_deref().unwrap_or_default() == shape.ports
        });
        match found {
            Some(index) => fill(service, free.remove(index), &shape, endpoints, &mut plan),
            None => missing.push((shape, endpoints)),
        }
    }
    for (shape, endpoints) in missing {
        let reusable = free
            .iter()
            .position(|slice| slice.address_type == shape.family);
        match reusable {
            Some(index) => fill(service, free.remove(index), &shape, endpoints, &mut plan),
            None => {
                let mut slice = shell(service, &shape);
                slice.endpoints = endpoints;
                let created = service
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0.to_string());
                slice.metadata.annotations =
                    created.map(|created| [(TRIGGER_TIME.to_owned(), created)].into());
                plan.create(&slice);
            }
        }
    }
    for slice in free {
        plan.delete(&**slice, Cascade::Background);
    }
    plan
}

struct SliceShape {
    family: String,
    ports: Vec<EndpointPort>,
}

/// The slices that shall be, in order; one without endpoints when there are no Pods.
fn wanted(backends_by_ports: &BackendsByPorts) -> Vec<(SliceShape, Vec<Endpoint>)> {
    let mut out = Vec::new();
    for (ports, backends) in backends_by_ports {
        for family in ["IPv4", "IPv6"] {
            let of_family: Vec<&Backend> = backends
                .iter()
                .filter(|backend| family_of(&backend.address) == family)
                .collect();
            for chunk in of_family.chunks(ENDPOINTS_MAX) {
                let shape = SliceShape {
                    family: family.to_owned(),
                    ports: ports.iter().map(port).collect(),
                };
                out.push((
                    shape,
                    chunk.iter().map(|backend| endpoint(backend)).collect(),
                ));
            }
        }
    }
    if out.is_empty() {
        out.push((
            SliceShape {
                family: "IPv4".to_owned(),
                ports: Vec::new(),
            },
            Vec::new(),
        ));
    }
    out
}

fn family_of(address: &str) -> &'static str {
    if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    }
}

fn port(port: &ResolvedPort) -> EndpointPort {
    EndpointPort {
        // A port without a name has the empty one.
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint {
        addresses: vec![backend.address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node_name.clone(),
        target_ref: Some(backend.target.clone()),
        ..Endpoint::default()
    }
}

fn shell(service: &Service, shape: &SliceShape) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = own_labels(service.metadata.labels.as_ref());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), SLICE_CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    EndpointSlice {
        address_type: shape.family.clone(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
        endpoints: Vec::new(),
        ports: (!shape.ports.is_empty()).then(|| shape.ports.clone()),
    }
}

fn fill(
    service: &Service,
    present: &EndpointSlice,
    shape: &SliceShape,
    endpoints: Vec<Endpoint>,
    plan: &mut Plan,
) {
    let mut desired = shell(service, shape);
    let unchanged = present.endpoints == endpoints
        && present.metadata.labels == desired.metadata.labels
        && present.ports.as_deref().unwrap_or_default() == shape.ports;
    if unchanged {
        return;
    }
    desired.endpoints = endpoints;
    plan.update(present, &desired);
}

#[cfg(test)]
mod tests {
    use super::super::gather::gather;
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kinglet_reconcile::Verb;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "a", "uid": "u", "labels": {"app": "x"}}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, extra: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8012}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
        });
        for (key, value) in extra.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn plan(service: &Service, pods: &[Arc<Pod>], present: &[Arc<EndpointSlice>]) -> Plan {
        decide(Some(service), Some(&gather(service, pods)), present)
    }

    #[test]
    fn readiness_and_ports_are_resolved_per_pod() {
        let service = service(
            json!({"selector": {"a": "b"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}),
        );
        let pods = [
            pod("up", "10.0.0.1", true, json!({})),
            pod("starting", "10.0.0.2", false, json!({})),
            pod(
                "ending",
                "10.0.0.3",
                true,
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            ),
            pod("no-address", "", true, json!({})),
        ];
        let plan = plan(&service, &pods, &[]);
        let slice = plan.writes().next().unwrap();
        assert_eq!(slice.verb, Verb::Create);
        assert_eq!(
            slice.body["ports"],
            json!([{"name": "http", "port": 8012, "protocol": "TCP"}])
        );
        let told: Vec<_> = slice.body["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["addresses"][0].as_str().unwrap(), e["conditions"].clone()))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "10.0.0.1",
                    json!({"ready": true, "serving": true, "terminating": false})
                ),
                (
                    "10.0.0.2",
                    json!({"ready": false, "serving": false, "terminating": false})
                ),
                (
                    "10.0.0.3",
                    json!({"ready": false, "serving": true, "terminating": true})
                ),
            ]
        );
        assert_eq!(
            slice.body["metadata"]["labels"],
            json!({
                "app": "x", "kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"
            })
        );
        assert_eq!(slice.body["metadata"]["generateName"], "s-");
    }

    #[test]
    fn no_pods_leave_one_empty_slice_which_is_then_filled() {
        let service = service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}));
        let first = plan(&service, &[], &[]);
        let mut slice: EndpointSlice =
            serde_json::from_value(first.writes().next().unwrap().body.clone()).unwrap();
        assert!(slice.endpoints.is_empty());
        slice.metadata.name = Some("s-1".into());
        slice.metadata.annotations = None;
        let present = [Arc::new(slice)];
        assert!(plan(&service, &[], &present).writes().next().is_none());
        let second = plan(
            &service,
            &[pod("up", "10.0.0.1", true, json!({}))],
            &present,
        );
        let write = second.writes().next().unwrap();
        assert_eq!((&write.verb, &*write.key.name), (&Verb::Update, "s-1"));
        assert_eq!(second.writes().count(), 1);
    }

    #[test]
    fn a_slice_holds_a_hundred() {
        let service = service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}));
        let pods: Vec<_> = (0..250)
            .map(|n| {
                pod(
                    &format!("p{n:03}"),
                    &format!("10.0.{}.{}", n / 250, n % 250),
                    true,
                    json!({}),
                )
            })
            .collect();
        let sizes: Vec<_> = plan(&service, &pods, &[])
            .writes()
            .map(|write| write.body["endpoints"].as_array().unwrap().len())
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
    }
}
