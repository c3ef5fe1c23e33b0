//! Everything a ServerlessService's decision depends on, read from caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kinglet_api::names;
use kinglet_api::networking::ServerlessService;
use kinglet_reconcile::Context;

use super::ACTIVATOR_SERVICE;

/// Label by which slices name their Service.
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

/// Facts about one ServerlessService.
#[derive(Clone, Debug)]
pub(super) struct ServerlessServiceObserved {
    pub(super) owner: Arc<ServerlessService>,
    pub(super) private: Option<Arc<Service>>,
    pub(super) public: Option<Arc<Service>>,
    pub(super) endpoints: Option<Arc<Endpoints>>,
    /// Labels of the pods; `None` while there is no Deployment.
    pub(super) selector: Option<BTreeMap<String, String>>,
    /// Ready pods behind the private Service, by address.
    pub(super) ready: Vec<EndpointAddress>,
    /// Ready activators, by address.
    pub(super) activators: Vec<EndpointAddress>,
    pub(super) now: Timestamp,
}

pub(super) fn observe(
    context: &Context,
    owner: Arc<ServerlessService>,
) -> ServerlessServiceObserved {
    let namespace = owner.namespace();
    let private = names::private_service(owner.name());
    let services = context.cache::<Service>();
    let deployment = context
        .cache::<Deployment>()
        .get(namespace, &owner.spec.object_ref.name);
    let slices = context
        .cache::<EndpointSlice>()
        .select(namespace, [(SLICE_SERVICE, private.as_str())]);
    ServerlessServiceObserved {
        private: services.get(namespace, &private),
        public: services.get(namespace, owner.name()),
        endpoints: context.cache::<Endpoints>().get(namespace, owner.name()),
        selector: deployment.and_then(|found| found.spec.as_ref()?.selector.match_labels.clone()),
        ready: ready_addresses(slices.iter().map(|slice| &**slice)),
        activators: activators(context),
        now: context.now(),
        owner,
    }
}

fn activators(context: &Context) -> Vec<EndpointAddress> {
    let (namespace, name) = ACTIVATOR_SERVICE;
    let found = context.cache::<Endpoints>().get(namespace, name);
    found.map_or_else(Vec::new, |endpoints| addresses_of(&endpoints))
}

/// The ready addresses of Endpoints, each once, sorted by address.
pub(super) fn addresses_of(endpoints: &Endpoints) -> Vec<EndpointAddress> {
    let subsets = endpoints.subsets.iter().flatten();
    let addresses = subsets.flat_map(|subset| subset.addresses.iter().flatten());
    let all: BTreeMap<&str, &EndpointAddress> = addresses
        .map(|address| (address.ip.as_str(), address))
        .collect();
    all.into_values().cloned().collect()
}

/// The ready addresses of some slices, each once, sorted by address.
pub(super) fn ready_addresses<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Vec<EndpointAddress> {
    let mut all: BTreeMap<String, EndpointAddress> = BTreeMap::new();
    for endpoint in slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| is_ready(endpoint))
    {
        for ip in &endpoint.addresses {
            let address = EndpointAddress {
                ip: ip.clone(),
                node_name: endpoint.node_name.clone(),
                target_ref: endpoint.target_ref.clone(),
                hostname: None,
            };
            all.insert(ip.clone(), address);
        }
    }
    all.into_values().collect()
}

/// Kubernetes: a missing condition means ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}
