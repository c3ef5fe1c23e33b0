//! Every backend by key (Envoy: cluster): one breaker per Revision, one per port of an ordinary Service.
//!
//! Clusters outlive route tables and updates, so that the order in which the two arrive does not matter: a table may name
//! a backend that nobody has described yet, and its requests wait in that cluster's breaker.

mod names;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use kinglet_decide::feed::{Endpoint, Key, Protocol, RevisionBackend, ServiceBackend};
use parking_lot::Mutex;

use crate::breaker::{Breaker, BreakerContext, ClusterConfig, Container};
use crate::role::Role;
use crate::routes::Destination;
use names::Names;

/// All backends.
pub(crate) struct Clusters {
    context: Arc<BreakerContext>,
    by_key: Mutex<HashMap<Key, Arc<Cluster>>>,
    /// Of an activator, whose requests name their Revision each.
    names: Option<Names>,
}

/// A Kubernetes Service as the gateway knows it.
pub(crate) struct Cluster {
    key: Key,
    /// The Revision of this name, or whatever is not known yet.
    revision: Arc<Breaker>,
    is_service: AtomicBool,
    known: AtomicBool,
    ports: ArcSwap<Vec<(u16, Arc<Breaker>)>>,
    /// Breakers of ports that are gone, while requests are still under way there.
    retired: Mutex<Vec<Arc<Breaker>>>,
}

impl Clusters {
    pub(crate) fn new(context: Arc<BreakerContext>) -> Self {
        let names = (context.options.role == Role::Activator).then(Names::default);
        Self {
            context,
            by_key: Mutex::default(),
            names,
        }
    }

    pub(crate) fn of(&self, key: &Key) -> Arc<Cluster> {
        let mut by_key = self.by_key.lock();
        let cluster = by_key
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Cluster::new(key, &self.context)));
        cluster.clone()
    }

    /// The Revision `key`, if one has been described.
    pub(crate) fn revision(&self, key: &Key) -> Option<Arc<Cluster>> {
        let cluster = self.by_key.lock().get(key).cloned()?;
        (cluster.is_known() && !cluster.is_service()).then_some(cluster)
    }

    /// The same for an activator: no lock is taken and nothing is allocated.
    pub(crate) fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Destination>> {
        self.names.as_ref()?.find(namespace, name)
    }

    /// Describes a Revision, or forgets it. Callers take turns.
    pub(crate) fn set_revision(&self, key: &Key, backend: Option<&RevisionBackend>) {
        let cluster = self.of(key);
        match backend {
            Some(backend) => {
                cluster.known.store(true, Ordering::Release);
                cluster.is_service.store(false, Ordering::Release);
                cluster.revision.update(
                    ClusterConfig::of(backend, self.context.options.role),
                    &backend.endpoints,
                );
                cluster.retire(&cluster.ports.swap(Arc::default()));
                if let Some(names) = &self.names {
                    names.insert(&cluster);
                }
            }
            None => {
                cluster.known.store(
                    cluster.is_service.load(Ordering::Acquire),
                    Ordering::Release,
                );
                cluster.revision.remove();
                if let Some(names) = &self.names {
                    names.remove(key);
                    // No route table comes to an activator with which clusters are forgotten.
                    drop(cluster);
                    self.retain(&HashSet::new());
                }
            }
        }
    }

    pub(crate) fn set_service(&self, key: &Key, backend: Option<&ServiceBackend>) {
        let cluster = self.of(key);
        let Some(backend) = backend else {
            if cluster.is_service.swap(false, Ordering::AcqRel) {
                cluster.known.store(false, Ordering::Release);
                // Already removed when the Service became known, unless a route table has named it since.
                cluster.revision.remove();
                cluster.retire(&cluster.ports.swap(Arc::default()));
            }
            return;
        };
        if cluster.known.load(Ordering::Acquire) && !cluster.is_service.load(Ordering::Acquire) {
            // A Revision's own Service is reported too by a feed that does not tell them apart; the Revision wins.
            return;
        }
        let before = cluster.ports.load_full();
        let ports: Vec<(u16, Arc<Breaker>)> = backend
            .ports
            .iter()
            .map(|(port, addresses)| {
                let breaker = match before.iter().find(|(known, _)| known == port) {
                    Some((_, breaker)) => breaker.clone(),
                    None => Breaker::new(key.clone(), self.context.clone()),
                };
                let protocol = if backend.h2c_ports.contains(port) {
                    Protocol::H2c
                } else {
                    Protocol::Http1
                };
                let endpoints: Vec<Endpoint> = addresses
                    .iter()
                    .map(|address| Endpoint {
                        pod: key.name.clone(),
                        address: *address,
                    })
                    .collect();
                breaker.update(ClusterConfig::of_service(protocol), &endpoints);
                (*port, breaker)
            })
            .collect();
        let gone: Vec<_> = before
            .iter()
            .filter(|(port, _)| !ports.iter().any(|(kept, _)| kept == port))
            .cloned()
            .collect();
        cluster.ports.store(Arc::new(ports));
        cluster.is_service.store(true, Ordering::Release);
        cluster.known.store(true, Ordering::Release);
        cluster.retire(&gone);
        // Requests that waited before the Service was known look it up again and find the port.
        cluster.revision.remove();
    }

    /// Called with the backends that a new route table names. Forgets clusters that no table names and no update
    /// describes.
    pub(crate) fn retain(&self, named: &HashSet<&Key>) {
        self.by_key.lock().retain(|key, cluster| {
            let is_named = named.contains(key);
            if is_named && !cluster.is_known() {
                cluster.revision.expect_again();
            }
            is_named
                || cluster.known.load(Ordering::Acquire)
                || cluster
                    .breakers()
                    .iter()
                    .any(|breaker| breaker.in_flight() > 0)
        });
    }

    pub(crate) fn breakers(&self) -> Vec<Arc<Breaker>> {
        let clusters: Vec<_> = self.by_key.lock().values().cloned().collect();
        clusters
            .iter()
            .flat_map(|cluster| cluster.breakers())
            .collect()
    }

    pub(crate) fn drain_address(&self, ip: IpAddr) -> Vec<Arc<Container>> {
        self.breakers()
            .iter()
            .flat_map(|breaker| breaker.drain_address(ip))
            .collect()
    }
}

impl Cluster {
    /// A queue-proxy's user container for requests that are neither counted nor limited.
    pub(crate) fn uncounted(backend: &RevisionBackend, context: &Arc<BreakerContext>) -> Arc<Self> {
        let key = &backend.revision;
        let cluster = Self::new(key, context);
        let config = ClusterConfig {
            concurrency: 0,
            depth: None,
            ..ClusterConfig::of(backend, context.options.role)
        };
        cluster.revision.update(config, &backend.endpoints);
        cluster.known.store(true, Ordering::Release);
        Arc::new(cluster)
    }

    fn new(key: &Key, context: &Arc<BreakerContext>) -> Self {
        Self {
            key: key.clone(),
            revision: Breaker::new(key.clone(), context.clone()),
            is_service: AtomicBool::new(false),
            known: AtomicBool::new(false),
            ports: ArcSwap::default(),
            retired: Mutex::default(),
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether an update has described it.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(crate) fn is_service(&self) -> bool {
        self.is_service.load(Ordering::Acquire)
    }

    /// Where requests for `port` go. A Revision's ports all lead to its one user port.
    pub(crate) fn breaker(&self, port: u16) -> Arc<Breaker> {
        if self.is_service()
            && let Some((_, breaker)) = self.ports.load().iter().find(|(known, _)| *known == port)
        {
            return breaker.clone();
        }
        self.revision.clone()
    }

    fn breakers(&self) -> Vec<Arc<Breaker>> {
        let mut breakers = vec![self.revision.clone()];
        breakers.extend(self.ports.load().iter().map(|(_, breaker)| breaker.clone()));
        let mut retired = self.retired.lock();
        retired.retain(|breaker| breaker.in_flight() > 0);
        breakers.extend(retired.iter().cloned());
        breakers
    }

    /// Ends the breakers of ports that are no longer served here; requests under way finish.
    fn retire(&self, ports: &[(u16, Arc<Breaker>)]) {
        let mut retired = self.retired.lock();
        for (_, breaker) in ports {
            breaker.remove();
            if breaker.in_flight() > 0 {
                retired.push(breaker.clone());
            }
        }
    }
}

#[cfg(all(test, not(kinglet_loom)))]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::options::Options;

    fn backend(key: &Key) -> RevisionBackend {
        RevisionBackend {
            revision: key.clone(),
            configuration: "c".into(),
            container_concurrency: 0,
            timeout: Duration::from_secs(1),
            response_start_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            protocol: Protocol::Http1,
            endpoints: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_activator_finds_the_revisions_that_it_was_told_of_and_forgets_the_others() {
        let (reports, _) = mpsc::channel(1);
        let options = Options {
            role: Role::Activator,
            ..Options::default()
        };
        let clusters = Clusters::new(Arc::new(BreakerContext::new(options, reports)));
        let keys: Vec<Key> = (0..1000)
            .map(|number| Key::new("ns", format!("r-{number}")))
            .collect();
        for key in &keys {
            clusters.set_revision(key, Some(&backend(key)));
        }
        let found = |key: &Key| clusters.by_name(&key.namespace, &key.name);
        for key in &keys {
            assert_eq!(found(key).expect("told of").cluster.key(), key);
        }
        assert!(clusters.by_name("ns", "r-1000").is_none());
        assert!(clusters.by_name("r-1", "ns").is_none());
        for key in &keys[1..] {
            clusters.set_revision(key, None);
            assert!(found(key).is_none());
        }
        assert!(found(&keys[0]).is_some());
        assert_eq!(clusters.by_key.lock().len(), 1);
        clusters.set_revision(&keys[1], Some(&backend(&keys[1])));
        assert!(found(&keys[1]).expect("told of again").cluster.is_known());
    }
}
