//! EndpointSlices mirrored from Endpoints that somebody maintains for a Service without a selector: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_reconcile::{Cascade, Plan, annotation, label, owner_reference};

use super::{MANAGED_BY, MIRROR_CONTROLLER, SERVICE_NAME, TRIGGER_TIME, own_labels, selector_of};

/// Label that keeps Endpoints from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are only a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses mirrored of one subset, as in Kubernetes.
const ADDRESSES_MAX: usize = 1000;

/// Makes the slices equal the Endpoints, or removes them when nothing is to be mirrored.
pub(super) fn decide(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    present: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::new();
    let wanted: Vec<EndpointSlice> = endpoints
        .filter(|endpoints| is_mirrored(service, endpoints))
        .map(|endpoints| {
            endpoints
                .subsets
                .iter()
                .flatten()
                .flat_map(|subset| slices(endpoints, subset))
                .collect()
        })
        .unwrap_or_default();
    let mut free: Vec<&Arc<EndpointSlice>> = present
        .iter()
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    for slice in wanted {
        let same_ports = |seen: &&Arc<EndpointSlice>| {
            seen.address_type == slice.address_type && seen.ports == slice.ports
        };
        let found = free.iter().position(same_ports).or_else(|| {
            free.iter()
                .position(|seen| seen.address_type == slice.address_type)
        });
        match found.map(|index| free.remove(index)) {
            None => {
                plan.create(&slice);
            }
            Some(seen) => {
                let same = seen.endpoints == slice.endpoints
                    && seen.ports == slice.ports
                    && seen.metadata.labels == slice.metadata.labels
                    && seen.metadata.annotations.clone().unwrap_or_default()
                        == slice.metadata.annotations.clone().unwrap_or_default();
                if !same {
                    plan.update(&**seen, &slice);
                }
            }
        }
    }
    for slice in free {
        plan.delete(&**slice, Cascade::Background);
    }
    plan
}

fn is_mirrored(service: Option<&Service>, endpoints: &Endpoints) -> bool {
    service.is_some_and(|service| {
        selector_of(service).is_none() && service.metadata.deletion_timestamp.is_none()
    }) && endpoints.metadata.deletion_timestamp.is_none()
        && label(endpoints, SKIP) != Some("true")
        && annotation(endpoints, LEADER).is_none()
}

fn slices(endpoints: &Endpoints, subset: &EndpointSubset) -> Vec<EndpointSlice> {
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let ready = subset
        .addresses
        .iter()
        .flatten()
        .map(|address| (address, true));
    let not_ready = subset
        .not_ready_addresses
        .iter()
        .flatten()
        .map(|address| (address, false));
    let mut by_family: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    for (address, ready) in ready.chain(not_ready).take(ADDRESSES_MAX) {
        let family = if address.ip.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        by_family
            .entry(family)
            .or_default()
            .push(endpoint(address, ready));
    }
    let slice = |(family, all): (&str, Vec<Endpoint>)| EndpointSlice {
        address_type: family.to_owned(),
        metadata: metadata(endpoints),
        endpoints: all,
        ports: (!ports.is_empty()).then(|| ports.clone()),
    };
    by_family.into_iter().map(slice).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = own_labels(endpoints.metadata.labels.as_ref());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MIRROR_CONTROLLER.to_owned());
    let not_copied = [
        TRIGGER_TIME,
        "kubectl.kubernetes.io/last-applied-configuration",
    ];
    let annotations = endpoints.metadata.annotations.iter().flatten();
    let annotations: BTreeMap<_, _> = annotations
        .filter(|(key, _)| !not_copied.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![owner_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "a"}, "spec": spec}))
            .unwrap()
    }

    fn endpoints() -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "a", "uid": "e", "labels": {"app": "x"}, "annotations": {"k": "v", "endpoints.kubernetes.io/last-change-trigger-time": "t"}},
            "subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "http", "port": 8012, "protocol": "TCP"}]}]
        }))
        .unwrap()
    }

    #[test]
    fn a_service_without_selector_is_mirrored_as_recorded() {
        let plan = decide(Some(&service(json!({}))), Some(&endpoints()), &[]);
        let body = &plan.writes().next().unwrap().body;
        assert_eq!(
            body["endpoints"],
            json!([{"addresses": ["10.0.0.9"], "conditions": {"ready": true}}])
        );
        assert_eq!(body["metadata"]["annotations"], json!({"k": "v"}));
        assert_eq!(body["metadata"]["labels"][MANAGED_BY], MIRROR_CONTROLLER);
        assert_eq!(body["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        let seen = Arc::new(serde_json::from_value::<EndpointSlice>(body.clone()).unwrap());
        assert!(
            decide(
                Some(&service(json!({}))),
                Some(&endpoints()),
                &[Arc::clone(&seen)]
            )
            .is_empty()
        );
        let removed = decide(
            Some(&service(json!({"selector": {"a": "b"}}))),
            Some(&endpoints()),
            &[seen],
        );
        assert_eq!(removed.writes().count(), 1);
    }

    #[test]
    fn what_asks_not_to_be_mirrored_is_not() {
        let mut skipped = endpoints();
        skipped.metadata.labels = Some([(SKIP.to_owned(), "true".to_owned())].into());
        assert!(decide(Some(&service(json!({}))), Some(&skipped), &[]).is_empty());
        assert!(decide(None, Some(&endpoints()), &[]).is_empty());
    }
}
