//! Keeps the packet filter's table equal to the Services and EndpointSlices in the caches, and to the pods' host ports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_process::Tasks;
use kinglet_reconcile::{Context, Key, key_of};

use super::Network;
use super::services::Observed;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Changes come in bursts: a pod that starts writes several objects. One pause, one transaction.
const GATHER: Duration = Duration::from_millis(10);
/// After the kernel has refused, the whole table is written anew.
const RETRY: Duration = Duration::from_secs(1);

/// Starts to follow; the first table with Services is written when the caches are complete.
pub(crate) fn start(network: &Network, context: &Context, tasks: &Tasks) {
    let changed = Arc::clone(&network.0.changed);
    let (of_service, of_slice) = (Arc::clone(&changed), Arc::clone(&changed));
    context
        .cache::<Service>()
        .observe(move |_| of_service.notify_one());
    context
        .cache::<EndpointSlice>()
        .observe(move |_| of_slice.notify_one());
    let (network, context) = (network.clone(), context.clone());
    tasks.component_cancellable("service-addresses", async move {
        context.cache::<Service>().wait_synced().await;
        context.cache::<EndpointSlice>().wait_synced().await;
        loop {
            changed.notified().await;
            tokio::time::sleep(GATHER).await;
            if let Err(error) = network.filter(&observe(&context)).await {
                tracing::warn!(%error, "Service addresses are not up to date; trying again");
                tokio::time::sleep(RETRY).await;
                changed.notify_one();
            }
        }
    });
}

/// Every Service with its slices, in order.
fn observe(context: &Context) -> Vec<Observed> {
    let mut slices: HashMap<Key, Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in context.cache::<EndpointSlice>().all() {
        let metadata = &slice.metadata;
        let labels = metadata.labels.as_ref();
        let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
            continue;
        };
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        slices
            .entry(Key::new(namespace, service.as_str()))
            .or_default()
            .push(slice);
    }
    let services = context.cache::<Service>().all();
    let observed = services.into_iter().map(|service| {
        let own = slices.remove(&key_of(&*service)).unwrap_or_default();
        (service, own)
    });
    observed.collect()
}
