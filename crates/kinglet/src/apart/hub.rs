//! What the controllers tell a data plane, put into the words of a feed: pure but for [`run`].
//!
//! A Revision's requests go to its public Service, whose endpoints are activators or queue-proxies; an activator is told
//! of the queue-proxies of all ready pods, at the port where they listen, and which activators the endpoints name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kinglet_dataplane::feed::{FedPod, FedRevision, Snapshot};
use kinglet_decide::feed::{Key, RevisionBackend, ServiceBackend, Update};
use tokio::sync::{mpsc, watch};

/// Updates that make one version at the most.
const BATCH_MAX: usize = 1024;
/// Where a queue-proxy listens in its pod; it understands HTTP/2 there, too.
const QUEUE_PORT: u16 = 8012;

/// Keeps `snapshots` equal to what `updates` said, and notes in `applied` which routes are told.
pub(super) async fn run(
    mut updates: mpsc::Receiver<Update>,
    mut activators: watch::Receiver<BTreeSet<IpAddr>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    applied: watch::Sender<u64>,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = updates.recv_many(&mut batch, BATCH_MAX) => if count == 0 {
                // The controllers have ended; what they said last stays.
                return std::future::pending().await;
            },
            _ = activators.changed() => {}
        }
        let mut routes = None;
        snapshots.send_modify(|current| {
            let snapshot = Arc::make_mut(current);
            let own = activators.borrow_and_update().clone();
            for update in batch.drain(..) {
                routes = take(snapshot, update).or(routes);
            }
            name_activators(snapshot, &own);
            snapshot.version += 1;
        });
        if let Some(version) = routes {
            applied.send_replace(version);
        }
    }
}

/// Takes an update over. Answers with the version of the routes, when it brought them.
fn take(snapshot: &mut Snapshot, update: Update) -> Option<u64> {
    match update {
        Update::Rules(version, rules) => {
            snapshot.rules = rules.to_vec();
            return Some(version);
        }
        // A table is for gateways of this process, which there are none of.
        Update::Routes(table) => return Some(table.version),
        // Names of services inside another process mean nothing to a gateway.
        Update::Service(key, Some(backend)) if backend.external_name.is_none() => {
            snapshot
                .services
                .insert(key, ServiceBackend::clone(&backend));
        }
        Update::Service(key, _) => {
            snapshot.services.remove(&key);
        }
        Update::Revision(key, Some(backend)) => {
            snapshot.revisions.insert(key, fed(&backend));
        }
        Update::Revision(key, None) => {
            snapshot.revisions.remove(&key);
        }
    }
    None
}

fn fed(backend: &RevisionBackend) -> FedRevision {
    let pods = backend.endpoints.iter().map(|endpoint| {
        let pod = FedPod {
            name: endpoint.pod.to_string(),
            ready: true,
        };
        (SocketAddr::new(endpoint.address.ip(), QUEUE_PORT), pod)
    });
    FedRevision {
        configuration: backend.configuration.to_string(),
        container_concurrency: backend.container_concurrency,
        timeout: backend.timeout,
        response_start_timeout: backend.response_start_timeout,
        idle_timeout: backend.idle_timeout,
        pods: pods.collect(),
        activators: Vec::new(),
        // Only ready pods are told, so there is nothing to wait for.
        wait_for_readiness: false,
    }
}

/// Notes for each Revision the activators that its public endpoints name.
fn name_activators(snapshot: &mut Snapshot, own: &BTreeSet<IpAddr>) {
    let named: BTreeMap<&Key, BTreeSet<IpAddr>> = snapshot
        .services
        .iter()
        .map(|(key, service)| {
            let addresses = service.ports.iter().flat_map(|(_, addresses)| addresses);
            let activators = addresses.map(SocketAddr::ip).filter(|ip| own.contains(ip));
            (key, activators.collect())
        })
        .collect();
    for (key, revision) in &mut snapshot.revisions {
        let activators = named.get(key).into_iter().flatten().copied();
        revision.activators = activators.collect();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use kinglet_decide::feed::{Endpoint, Protocol};

    fn key() -> Key {
        Key::new("ns", "one-00001")
    }

    fn revision(pods: &[&str]) -> Update {
        let endpoint = |ip: &&str| Endpoint {
            pod: (*ip).into(),
            address: format!("{ip}:8080").parse().expect("an address"),
        };
        Update::Revision(
            key(),
            Some(Arc::new(RevisionBackend {
                revision: key(),
                configuration: "one".into(),
                container_concurrency: 1,
                timeout: Duration::from_secs(300),
                response_start_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
                protocol: Protocol::H2c,
                endpoints: pods.iter().map(endpoint).collect(),
            })),
        )
    }

    fn service(addresses: &[&str]) -> Update {
        let addresses = addresses.iter().map(|one| one.parse().expect("an address"));
        let backend = ServiceBackend {
            ports: vec![(80, addresses.collect())],
            ..ServiceBackend::default()
        };
        Update::Service(key(), Some(Arc::new(backend)))
    }

    #[tokio::test]
    async fn updates_become_a_feed_of_queue_proxies_and_activators() {
        let (updates, queue) = mpsc::channel(8);
        let (own, activators) = watch::channel(BTreeSet::new());
        let (snapshots, mut told) = watch::channel(Arc::<Snapshot>::default());
        let (applied_now, mut applied) = watch::channel(0);
        let tasks = kinglet_process::Tasks::new();
        tasks.spawn_cancellable("hub", run(queue, activators, snapshots, applied_now));
        for update in [
            service(&["10.0.0.1:8012", "10.0.0.2:8012", "10.0.0.9:8012"]),
            revision(&["10.0.0.7"]),
            Update::Rules(7, Arc::default()),
        ] {
            updates.send(update).await.expect("the hub");
        }
        applied
            .wait_for(|version| *version == 7)
            .await
            .expect("routes");
        let before = told.borrow_and_update().clone();
        let fed = &before.revisions[&key()];
        let pods: Vec<String> = fed.pods.keys().map(ToString::to_string).collect();
        assert_eq!(
            (pods, fed.activators.len()),
            (vec!["10.0.0.7:8012".to_owned()], 0)
        );
        own.send_replace(
            ["10.0.0.2", "10.0.0.1"]
                .map(|ip| ip.parse().expect("an address"))
                .into(),
        );
        let told = told.wait_for(|now| !now.revisions[&key()].activators.is_empty());
        let named = told.await.expect("activators").revisions[&key()]
            .activators
            .clone();
        assert_eq!(named.len(), 2);
        assert!(named.is_sorted());
        tasks.shutdown(Duration::from_secs(5)).await;
    }
}
