//! The Endpoints object of a Service with a selector: pure.

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_reconcile::{Cascade, Plan, label};

use super::gather::{Backend, BackendsByPorts};
use super::{HEADLESS, TRIGGER_TIME, is_headless, own_labels};

/// Label that names who maintains an Endpoints object.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// Addresses in one Endpoints object, as in Kubernetes.
const ADDRESSES_MAX: usize = 1000;

/// Makes the Endpoints equal what was backends_by_ports.
pub(super) fn decide(
    service: Option<&Service>,
    backends_by_ports: Option<&BackendsByPorts>,
    present: Option<&Endpoints>,
) -> Plan {
    let mut plan = Plan::new();
    let (Some(service), Some(backends_by_ports)) = (service, backends_by_ports) else {
        let ours = present
            .filter(|present| service.is_none() && label(*present, MANAGED_BY) == Some(CONTROLLER));
        if let Some(present) = ours.filter(|present| present.metadata.deletion_timestamp.is_none())
        {
            plan.delete(present, Cascade::Background);
        }
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut desired = Endpoints {
        metadata: metadata(service),
        subsets: subsets(backends_by_ports),
    };
    match present {
        None => {
            let created = service
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.to_string());
            desired.metadata.annotations =
                created.map(|created| [(TRIGGER_TIME.to_owned(), created)].into());
            plan.create(&desired);
        }
        Some(seen)
            if seen.subsets == desired.subsets
                && seen.metadata.labels == desired.metadata.labels => {}
        Some(seen) => {
            plan.update(seen, &desired);
        }
    }
    plan
}

fn metadata(service: &Service) -> ObjectMeta {
    let mut labels = own_labels(service.metadata.labels.as_ref());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn subsets(backends_by_ports: &BackendsByPorts) -> Option<Vec<EndpointSubset>> {
    let mut left = ADDRESSES_MAX;
    let mut out = Vec::new();
    for (ports, backends) in backends_by_ports {
        let mut some = |ready: bool| {
            // A Pod that ends is in neither list: these readers know nothing of draining.
            let wanted = backends.iter().filter(|backend| {
                backend.ready == ready && (backend.ready || !backend.terminating)
            });
            let addresses: Vec<_> = wanted.take(left).map(address).collect();
            left -= addresses.len();
            (!addresses.is_empty()).then_some(addresses)
        };
        let (addresses, not_ready_addresses) = (some(true), some(false));
        if addresses.is_none() && not_ready_addresses.is_none() {
            continue;
        }
        let ports: Vec<EndpointPort> = ports
            .iter()
            .map(|port| EndpointPort {
                name: port.name.clone(),
                port: port.port,
                protocol: Some(port.protocol.clone()),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        out.push(EndpointSubset {
            addresses,
            not_ready_addresses,
            ports: (!ports.is_empty()).then_some(ports),
        });
    }
    (!out.is_empty()).then_some(out)
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.address.clone(),
        hostname: backend.hostname.clone(),
        node_name: backend.node_name.clone(),
        target_ref: Some(backend.target.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::gather;
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[test]
    fn ready_and_not_ready_pods_share_a_subset() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "a"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}
        })).unwrap();
        let pod = |name: &str, ip: &str, status: &str| -> Value {
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"containers": []}, "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": status}]}})
        };
        let pods: Vec<_> = [pod("x", "10.0.0.1", "True"), pod("y", "10.0.0.2", "False")]
            .into_iter()
            .map(|pod| Arc::new(serde_json::from_value(pod).unwrap()))
            .collect();
        let backends_by_ports = gather(&service, &pods);
        let plan = decide(Some(&service), Some(&backends_by_ports), None);
        let body = &plan.writes().next().unwrap().body;
        assert_eq!(body["subsets"][0]["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(body["subsets"][0]["notReadyAddresses"][0]["ip"], "10.0.0.2");
        assert_eq!(
            body["subsets"][0]["ports"],
            json!([{"port": 8080, "protocol": "TCP"}])
        );
        let seen: Endpoints = serde_json::from_value(body.clone()).unwrap();
        assert!(decide(Some(&service), Some(&backends_by_ports), Some(&seen)).is_empty());
        assert_eq!(decide(None, None, Some(&seen)).writes().count(), 1);
    }
}
