//! Names inside pods.
//!
//! Flow: a datagram or a connection at the gateway address, port 53 -> [`zone`] (pure: what do our caches say?) -> an answer, or
//! [`upstream`]: the host's own resolvers.
//! Always: bounded questions in flight, of all pods and of each; whatever is not ours is forwarded as it came.

mod message;
mod server;
mod upstream;
mod zone;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_process::Tasks;
use kinglet_reconcile::{Context, label, name_of, namespace_of};

use crate::pod::start::Shared;
use zone::{EndpointRecord, PortRecord};

/// On EndpointSlices: the Service whose endpoints they hold.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Starts to answer.
pub(crate) async fn start(shared: &Arc<Shared>, tasks: &Tasks) {
    shared.context().cache::<Namespace>();
    let address = SocketAddr::from((shared.engine.gateway(), 53));
    let zone = Arc::new(zone::Zone {
        domain: shared.options.cluster_domain.clone(),
        gateway: shared.engine.gateway(),
        networks: shared.engine.network().named_networks(),
        records: Box::new(Cached(shared.context().clone())),
    });
    let upstream = Arc::new(upstream::Upstream::new(&shared.resolv_conf, address.ip()));
    if let Err(error) = server::start(address, zone, upstream, tasks).await {
        tracing::warn!(%address, %error, "names of Services will not resolve inside pods");
    }
}

/// What the caches know about names.
struct Cached(Context);

impl zone::Records for Cached {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.0.cache::<Service>().get(namespace, name)
    }

    fn endpoints(&self, namespace: &str, name: &str) -> Vec<EndpointRecord> {
        let slices = self
            .0
            .cache::<EndpointSlice>()
            .select(namespace, [(SERVICE_NAME, name)]);
        let mut all: Vec<EndpointRecord> =
            slices.iter().flat_map(|slice| records_of(slice)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.0.cache::<Namespace>().get("", name).is_some()
    }

    fn services_at(&self, address: Ipv4Addr) -> Vec<(String, String)> {
        let text = address.to_string();
        let services = self.0.cache::<Service>().all();
        let by_address = services.iter().filter(|service| {
            let spec = service.spec.as_ref();
            spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some(&text)
        });
        let found: Vec<_> = by_address
            .map(|service| (namespace_of(&**service), name_of(&**service)))
            .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
            .collect();
        if !found.is_empty() {
            return found;
        }
        let slices = self.0.cache::<EndpointSlice>().all();
        let with_address = slices.iter().filter(|slice| {
            let mut endpoints = slice.endpoints.iter();
            endpoints.any(|endpoint| endpoint.addresses.first() == Some(&text))
        });
        let headless = with_address.filter_map(|slice| {
            let (namespace, name) = (namespace_of(&**slice), label(&**slice, SERVICE_NAME)?);
            let service = self.0.cache::<Service>().get(namespace, name)?;
            let address = service.spec.as_ref()?.cluster_ip.as_deref();
            (address == Some("None")).then(|| (namespace.to_owned(), name.to_owned()))
        });
        headless.collect()
    }
}

/// The ready endpoints of one slice.
fn records_of(slice: &EndpointSlice) -> Vec<EndpointRecord> {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(PortRecord {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: u16::try_from(port.port?).ok()?,
        })
    });
    let ports: Vec<PortRecord> = ports.collect();
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready) != Some(false)
    });
    let records = ready.filter_map(|endpoint| {
        Some(EndpointRecord {
            address: endpoint.addresses.first()?.parse().ok()?,
            hostname: endpoint.hostname.clone(),
            ports: ports.clone(),
        })
    });
    records.collect()
}
