//! Names inside pods.
//!
//! Flow: a datagram or a connection at the gateway address, port 53 -> [`zone`] (pure: what do our caches say?) -> an answer, or
//! [`upstream`]: the host's own resolvers.
//! Always: bounded questions in flight, of all pods and of each; whatever is not ours is forwarded as it came.

mod message;
mod server;
mod shares;
mod upstream;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_process::Tasks;
use kinglet_reconcile::Context;

use crate::pod::start::Shared;
use zone::{EndpointRecord, PortRecord};

/// Starts to answer.
pub(crate) async fn start(shared: &Arc<Shared>, tasks: &Tasks) {
    shared.context().cache::<Namespace>();
    let address = SocketAddr::from((shared.engine.gateway(), 53));
    let zone = Arc::new(zone::Zone {
        domain: shared.options.cluster_domain.clone(),
        gateway: shared.engine.gateway(),
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
            .select(namespace, [("kubernetes.io/service-name", name)]);
        let mut all: Vec<EndpointRecord> =
            slices.iter().flat_map(|slice| records_of(slice)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.0.cache::<Namespace>().get("", name).is_some()
    }

    fn pod_of(&self, namespace: &str, service: &str, hostname: &str) -> Option<IpAddr> {
        let pods = self.0.cache::<Pod>().list(namespace);
        let found = pods.iter().find(|pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.subdomain.as_deref()) == Some(service)
                && spec.and_then(|spec| spec.hostname.as_deref()) == Some(hostname)
        })?;
        found.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
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
