//! The lines of what requests go to: Services for a gateway, Revisions for an activator.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kinglet_decide::feed::{Key, ServiceBackend};
use serde::{Deserialize, Serialize};

use super::Name;

/// A Revision as an activator is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FedRevision {
    /// Name of its Configuration.
    pub configuration: String,
    /// 0: no limit.
    pub container_concurrency: u32,
    /// `spec.timeoutSeconds`.
    pub timeout: Duration,
    /// Zero: none.
    pub response_start_timeout: Duration,
    /// Zero: none.
    pub idle_timeout: Duration,
    /// Pods and where their queue-proxies listen, by address.
    pub pods: BTreeMap<SocketAddr, FedPod>,
    /// The activators that its public Endpoints name, sorted.
    pub activators: Vec<IpAddr>,
    /// A queue-proxy's own word is not enough: the user container has an exec readiness probe or a startup probe.
    pub wait_for_readiness: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct FedPod {
    /// Its name.
    pub name: String,
    /// Kubernetes calls it ready.
    pub ready: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    ports: Vec<ServicePort>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServicePort {
    port: u16,
    /// `http1` or `h2c`.
    #[serde(default)]
    name: PortName,
    addresses: Vec<SocketAddr>,
}

#[derive(Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum PortName {
    #[default]
    Http1,
    H2c,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Revision {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    configuration: String,
    #[serde(default)]
    container_concurrency: u32,
    timeout_seconds: u32,
    #[serde(default)]
    response_start_timeout_seconds: u32,
    #[serde(default)]
    idle_timeout_seconds: u32,
    pods: Vec<RevisionPod>,
    #[serde(default)]
    activators: Vec<IpAddr>,
    #[serde(default)]
    wait_for_readiness: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RevisionPod {
    name: String,
    address: SocketAddr,
    #[serde(default = "yes")]
    ready: bool,
}

fn yes() -> bool {
    true
}

impl Service {
    pub(super) fn of(key: &Key, backend: &ServiceBackend) -> Self {
        let Name { namespace, name } = Name::of(key);
        let ports = backend.ports.iter().map(|(port, addresses)| ServicePort {
            port: *port,
            name: match backend.h2c_ports.contains(port) {
                true => PortName::H2c,
                false => PortName::Http1,
            },
            addresses: addresses.clone(),
        });
        Self {
            namespace,
            name,
            ports: ports.collect(),
        }
    }

    pub(super) fn into_backend(self) -> ServiceBackend {
        let h2c = self.ports.iter().filter(|port| port.name == PortName::H2c);
        ServiceBackend {
            h2c_ports: h2c.map(|port| port.port).collect(),
            external_name: None,
            ports: self
                .ports
                .into_iter()
                .map(|port| (port.port, port.addresses))
                .collect(),
        }
    }
}

impl Revision {
    pub(super) fn of(key: &Key, fed: &FedRevision) -> Self {
        let Name { namespace, name } = Name::of(key);
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let pods = fed.pods.iter().map(|(address, pod)| RevisionPod {
            name: pod.name.clone(),
            address: *address,
            ready: pod.ready,
        });
        Self {
            namespace,
            name,
            configuration: fed.configuration.clone(),
            container_concurrency: fed.container_concurrency,
            timeout_seconds: seconds(fed.timeout),
            response_start_timeout_seconds: seconds(fed.response_start_timeout),
            idle_timeout_seconds: seconds(fed.idle_timeout),
            pods: pods.collect(),
            activators: fed.activators.clone(),
            wait_for_readiness: fed.wait_for_readiness,
        }
    }

    pub(super) fn into_fed(self) -> FedRevision {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut activators = self.activators;
        activators.sort_unstable();
        activators.dedup();
        FedRevision {
            configuration: self.configuration,
            container_concurrency: self.container_concurrency,
            timeout: seconds(self.timeout_seconds),
            response_start_timeout: seconds(self.response_start_timeout_seconds),
            idle_timeout: seconds(self.idle_timeout_seconds),
            pods: self
                .pods
                .into_iter()
                .map(|pod| {
                    let fed = FedPod {
                        name: pod.name,
                        ready: pod.ready,
                    };
                    (pod.address, fed)
                })
                .collect(),
            activators,
            wait_for_readiness: self.wait_for_readiness,
        }
    }
}
