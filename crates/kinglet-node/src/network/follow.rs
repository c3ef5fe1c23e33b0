//! Keeps the packet filter's table equal to the Services and EndpointSlices in the caches, and to the pods' host ports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_process::Tasks;
use kinglet_reconcile::{Change, Context, Key, key_of};
use parking_lot::Mutex;

use super::Network;
use super::services::{Observed, SERVICE_TYPE, cluster_address};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Changes come in bursts: a pod that starts writes several objects. One pause, one transaction.
const GATHER: Duration = Duration::from_millis(10);
/// After the kernel has refused, the whole table is written anew.
const RETRY: Duration = Duration::from_secs(1);

/// What the table is made of, and no more of each object than that, so that a change of one Service does not read
/// thousands again.
#[derive(Default)]
struct Followed {
    services: BTreeMap<Key, Arc<Service>>,
    /// By the key of the Service, then by that of the slice.
    slices: BTreeMap<Key, BTreeMap<Key, Arc<EndpointSlice>>>,
    /// Which Service a slice belongs to.
    service_of: HashMap<Key, Key>,
}

/// Starts to follow; the first table with Services is written when the caches are complete.
pub(crate) fn start(network: &Network, context: &Context, tasks: &Tasks) {
    let followed = Arc::<Mutex<Followed>>::default();
    let (changed, known) = (Arc::clone(&network.0.changed), Arc::clone(&followed));
    context.cache::<Service>().observe(move |change| {
        known.lock().take_service(change);
        changed.notify_one();
    });
    let (changed, known) = (Arc::clone(&network.0.changed), Arc::clone(&followed));
    context.cache::<EndpointSlice>().observe(move |change| {
        known.lock().take_slice(change);
        changed.notify_one();
    });
    let changed = Arc::clone(&network.0.changed);
    let (network, context) = (network.clone(), context.clone());
    tasks.component_cancellable("service-addresses", async move {
        context.cache::<Service>().wait_synced().await;
        context.cache::<EndpointSlice>().wait_synced().await;
        loop {
            changed.notified().await;
            tokio::time::sleep(GATHER).await;
            let observed = followed.lock().observed();
            if let Err(error) = network.filter(&observed).await {
                tracing::warn!(%error, "Service addresses are not up to date; trying again");
                tokio::time::sleep(RETRY).await;
                changed.notify_one();
            }
        }
    });
}

impl Followed {
    fn take_service(&mut self, change: &Change<Service>) {
        let (Change::Applied { new: service, .. } | Change::Deleted(service)) = change else {
            return;
        };
        let key = key_of(&**service);
        match service_part(service).filter(|_| matches!(change, Change::Applied { .. })) {
            Some(part) => self.services.insert(key, Arc::new(part)),
            None => self.services.remove(&key),
        };
    }

    fn take_slice(&mut self, change: &Change<EndpointSlice>) {
        let (Change::Applied { new: slice, .. } | Change::Deleted(slice)) = change else {
            return;
        };
        let key = key_of(&**slice);
        // Its label may have changed, so what was known of it goes first.
        if let Some(service) = self.service_of.remove(&key)
            && let Some(slices) = self.slices.get_mut(&service)
        {
            slices.remove(&key);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        if let (Change::Applied { .. }, Some(service)) = (change, service) {
            let service = Key::new(&*key.namespace, service.as_str());
            let slices = self.slices.entry(service.clone()).or_default();
            slices.insert(key.clone(), Arc::new(slice_part(slice)));
            self.service_of.insert(key, service);
        }
    }

    /// Every Service that has an address, with its slices, in order.
    fn observed(&self) -> Vec<Observed> {
        let services = self.services.iter().map(|(key, service)| {
            let slices = self.slices.get(key).into_iter().flatten();
            let slices = slices.map(|(_, slice)| Arc::clone(slice)).collect();
            (Arc::clone(service), slices)
        });
        services.collect()
    }
}

/// Of a Service with an address: the address, ports, affinity, and who answers.
fn service_part(service: &Service) -> Option<Service> {
    cluster_address(service)?;
    let (metadata, spec) = (&service.metadata, service.spec.as_ref()?);
    let kind = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get_key_value(SERVICE_TYPE));
    Some(Service {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            labels: kind.map(|(name, value)| BTreeMap::from([(name.clone(), value.clone())])),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: spec.type_.clone(),
            cluster_ip: spec.cluster_ip.clone(),
            ports: spec.ports.clone(),
            session_affinity: spec.session_affinity.clone(),
            session_affinity_config: spec.session_affinity_config.clone(),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// Of a slice: ports, addresses and who is ready.
fn slice_part(slice: &EndpointSlice) -> EndpointSlice {
    let endpoints = slice.endpoints.iter().map(|endpoint| Endpoint {
        addresses: endpoint.addresses.clone(),
        conditions: endpoint.conditions.clone(),
        ..Endpoint::default()
    });
    EndpointSlice {
        address_type: slice.address_type.clone(),
        endpoints: endpoints.collect(),
        metadata: ObjectMeta::default(),
        ports: slice.ports.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn applied<K: serde::de::DeserializeOwned>(object: Value) -> Change<K> {
        let new = serde_json::from_value(object).expect("an object");
        Change::Applied {
            old: None,
            new: Arc::new(new),
        }
    }

    fn deleted<K: serde::de::DeserializeOwned>(object: Value) -> Change<K> {
        Change::Deleted(Arc::new(serde_json::from_value(object).expect("an object")))
    }

    fn service(name: &str, address: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "labels": {SERVICE_TYPE: "Public", "other": "x"}},
            "spec": {"clusterIP": address, "selector": {"a": "b"}, "ports": [{"port": 80}]}})
    }

    fn slice(name: &str, of: &str, address: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "labels": {SERVICE_NAME: of}}, "addressType": "IPv4",
            "ports": [{"port": 8080}], "endpoints": [{"addresses": [address], "nodeName": "n"}]})
    }

    fn seen(followed: &Followed) -> Vec<(String, Vec<String>)> {
        let observed = followed.observed().into_iter().map(|(service, slices)| {
            let addresses = slices.iter().flat_map(|slice| &slice.endpoints);
            let addresses = addresses.flat_map(|endpoint| endpoint.addresses.clone());
            (
                service.metadata.name.clone().expect("a name"),
                addresses.collect(),
            )
        });
        observed.collect()
    }

    #[test]
    fn services_come_and_go_with_their_slices() {
        let mut followed = Followed::default();
        followed.take_slice(&applied(slice("s1", "web", "10.1.0.7")));
        followed.take_service(&applied(service("web", "10.9.0.5")));
        followed.take_service(&applied(service("headless", "None")));
        followed.take_slice(&applied(slice("s2", "web", "10.1.0.8")));
        let both = vec!["10.1.0.7".to_owned(), "10.1.0.8".to_owned()];
        assert_eq!(seen(&followed), [("web".to_owned(), both)]);
        // A slice that names another Service now.
        followed.take_slice(&applied(slice("s1", "api", "10.1.0.7")));
        followed.take_service(&applied(service("api", "10.9.0.6")));
        let one = |address: &str| vec![address.to_owned()];
        let expected = [
            ("api".to_owned(), one("10.1.0.7")),
            ("web".to_owned(), one("10.1.0.8")),
        ];
        assert_eq!(seen(&followed), expected);
        // A Service that loses its address, and what is deleted.
        followed.take_service(&applied(service("web", "None")));
        followed.take_slice(&deleted(slice("s1", "api", "10.1.0.7")));
        assert_eq!(seen(&followed), [("api".to_owned(), Vec::new())]);
        followed.take_service(&deleted(service("api", "10.9.0.6")));
        followed.take_slice(&deleted(slice("s2", "web", "10.1.0.8")));
        assert!(
            seen(&followed).is_empty()
                && followed.slices.is_empty()
                && followed.service_of.is_empty()
        );
    }

    #[test]
    fn the_parts_kept_say_the_same() {
        use super::super::services::{Gateway, add};
        let gateway = Gateway {
            address: "10.1.0.1:80".parse().expect("an address"),
            answers_revisions: true,
        };
        for labelled in [false, true] {
            let mut whole = service("web", "10.9.0.5");
            whole["spec"]["sessionAffinity"] = json!("ClientIP");
            if !labelled {
                whole["metadata"]["labels"] = json!({});
            }
            let (service, slice): (Service, EndpointSlice) = (
                serde_json::from_value(whole).expect("a Service"),
                serde_json::from_value(slice("s", "web", "10.1.0.7")).expect("a slice"),
            );
            let part = service_part(&service).expect("it has an address");
            assert!(
                part.spec
                    .as_ref()
                    .is_some_and(|spec| spec.selector.is_none())
            );
            let parts = (Arc::new(part), vec![Arc::new(slice_part(&slice))]);
            let wholes = (Arc::new(service), vec![Arc::new(slice)]);
            let [from_parts, from_wholes] = [parts, wholes].map(|observed| {
                let mut ruleset = super::super::ruleset::Ruleset::default();
                add(&mut ruleset, &[observed], gateway);
                ruleset.to_string()
            });
            assert_eq!(from_parts, from_wholes);
            assert!(from_parts.contains("10.9.0.5"));
        }
    }
}
