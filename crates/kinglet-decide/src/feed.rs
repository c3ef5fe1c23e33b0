//! What crosses between the control plane (`serving`) and the data plane (`dataplane`).
//!
//! Neither knows the other: the root makes bounded channels of these types and hands an end to each.
//! Control to data: [`Update`]. Data to control: [`Report`]. Applied route versions travel back as a
//! plain number, the last [`crate::route::RouteTable`] version in force.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Namespace and name of an object; which kind is told by the field that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Object name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a container speaks behind the gateway (spec/serving.md 1.6.4: port name `h2c` or `http1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1, with upgrades.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (gRPC).
    H2c,
}

/// One ready container that may take requests of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the Pod, for statistics and traces.
    pub pod: Arc<str>,
    /// Address of the *user* container (not of a queue-proxy).
    pub address: SocketAddr,
}

/// Everything the data plane needs to send requests to one Revision.
///
/// Sent whole each time it changes; the last one wins.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionBackend {
    /// The Revision (its public Kubernetes Service has the same key).
    pub revision: Key,
    /// Name of the owning Service or Configuration, for metrics.
    pub configuration: Arc<str>,
    /// `spec.containerConcurrency`; 0 means unlimited.
    pub container_concurrency: u32,
    /// Whole request (`spec.timeoutSeconds`).
    pub timeout: Duration,
    /// Until the first byte of the answer; zero means no limit of its own.
    pub response_start_timeout: Duration,
    /// Between bytes; zero means none.
    pub idle_timeout: Duration,
    /// Protocol of the user port.
    pub protocol: Protocol,
    /// Ready endpoints, sorted by pod name. Empty while scaled to zero.
    pub endpoints: Vec<Endpoint>,
}

/// A Kubernetes Service that is no Revision: port number on the Service -> ready addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServiceBackend {
    /// Service port -> ready addresses.
    pub ports: Vec<(u16, Vec<SocketAddr>)>,
    /// Service ports that speak HTTP/2 without TLS (named `http2`/`h2c`, or appProtocol `kubernetes.io/h2c`).
    pub h2c_ports: Vec<u16>,
    /// Of a Service of type ExternalName: the name that it stands for, in lower case. It has no ports then.
    pub external_name: Option<Arc<str>>,
}

/// Control plane to data plane.
#[derive(Clone, Debug)]
pub enum Update {
    /// Replace the route table; acknowledged by its version.
    Routes(Arc<crate::route::RouteTable>),
    /// The same by version and rules, for gateways in other processes: each builds a table of its own.
    Rules(u64, Arc<[crate::route::IngressRule]>),
    /// Set (or with `None` forget) a Revision.
    Revision(Key, Option<Arc<RevisionBackend>>),
    /// Set (or with `None` forget) an ordinary Service.
    Service(Key, Option<Arc<ServiceBackend>>),
}

/// Who reports, and about which pod (spec/serving.md 5.1).
///
/// A gateway or an activator reports about its own requests, so both are its own name; the scraper reports about
/// queue-proxies, by their pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The pod that reports, the address of its connection, or `service-scraper`.
    pub reporter: Arc<str>,
    /// The pod whose requests are counted.
    pub pod: Arc<str>,
}

impl Source {
    /// A process that reports about the requests that pass through itself.
    pub fn itself(pod: impl Into<Arc<str>>) -> Self {
        let pod = pod.into();
        Self {
            reporter: pod.clone(),
            pod,
        }
    }
}

/// Data plane to control plane.
#[derive(Clone, Debug)]
pub enum Report {
    /// A request waits for a Revision without a ready endpoint: scale from zero now, not at the next tick.
    Poke {
        /// The Revision.
        revision: Key,
        /// Where the request waits.
        source: Source,
    },
    /// What one reporter saw of one Revision since its last report (once a second while it has any traffic, and one
    /// final zero report when traffic ends).
    Stat {
        /// The Revision.
        revision: Key,
        /// Who counted.
        source: Source,
        /// What was counted.
        stat: Stat,
    },
    /// A reporter has ended, or its connection has: its last word is no longer believed.
    Gone {
        /// [`Source::reporter`].
        reporter: Arc<str>,
    },
}

/// Requests of one Revision that one reporter saw over one reporting interval of about a second: Knative's `Stat`
/// (spec/serving.md 5.1), with counts per second.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Stat {
    /// Time-weighted mean of requests in flight (waiting ones included).
    pub average_concurrent_requests: f64,
    /// The part of it that an activator has counted already.
    pub average_proxied_concurrent_requests: f64,
    /// Requests that arrived, per second.
    pub request_count: f64,
    /// The part of them that an activator has counted already.
    pub proxied_request_count: f64,
    /// Seconds since the reporting process started; 0 where it does not matter.
    pub process_uptime: f64,
    /// Requests in flight (waiting ones included) at the moment of the report. `None` from another process, since
    /// Knative does not send it.
    pub in_flight: Option<u32>,
}
