//! What a queue-proxy's request log says about each request (spec/serving.md 6.3.8).
//!
//! Made only while somebody takes the entries; formatted by whoever takes them. An entry that finds the channel full is
//! dropped: a log never holds a request up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use kinglet_decide::feed::Key;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::breaker::{ClusterConfig, Container, Slot};
use crate::headers;
use crate::listen::Peer;
use crate::pool::RawTarget;
use crate::routes::Destination;

/// One request that a pod has served.
#[derive(Clone, Debug)]
pub struct RequestLogEntry {
    /// The Revision.
    pub revision: Key,
    /// Name of its Configuration.
    pub configuration: Arc<str>,
    /// The pod and its address.
    pub pod: (Arc<str>, SocketAddr),
    /// Of the request, as the client sent it.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// HTTP version that the client speaks.
    pub version: Version,
    /// The host asked for.
    pub host: String,
    /// The request's header lines.
    pub headers: HeaderMap,
    /// The client.
    pub remote: SocketAddr,
    /// Status of the response.
    pub status: u16,
    /// Bytes of the response's body that were passed on.
    pub response_bytes: u64,
    /// From the request's arrival to the response's end.
    pub latency: Duration,
}

/// Where entries go, if anywhere.
#[derive(Default)]
pub(crate) struct RequestLogs {
    enabled: AtomicBool,
    probes: AtomicBool,
    entries: ArcSwapOption<mpsc::Sender<RequestLogEntry>>,
}

impl RequestLogs {
    /// `probes`: those that are answered in a pod's place have an entry too (`logging.enable-probe-request-log`).
    pub(crate) fn send_to(&self, entries: Option<mpsc::Sender<RequestLogEntry>>, probes: bool) {
        self.probes.store(probes, Ordering::Relaxed);
        self.enabled.store(entries.is_some(), Ordering::Relaxed);
        self.entries.store(entries.map(Arc::new));
    }

    /// Makes the entry of a probe that was answered in the place of one of the destination's pods, if it has any.
    pub(crate) fn probe(
        &self,
        peer: &Peer,
        parts: &Parts,
        destination: &Destination,
        status: StatusCode,
    ) {
        if !self.probes.load(Ordering::Relaxed) {
            return;
        }
        let breaker = destination.cluster.breaker(destination.port);
        if let Some(mut entry) = self.begin(peer, parts, None)
            && let Some((config, container)) = breaker.any_container()
        {
            entry.status = status.as_u16();
            entry.served_by_container(breaker.key(), &config, &container);
        }
    }

    /// Begins the entry of a request, when requests are logged.
    pub(crate) fn begin(
        &self,
        peer: &Peer,
        parts: &Parts,
        raw_target: Option<&RawTarget>,
    ) -> Option<Box<PendingEntry>> {
        if !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        let entries = self.entries.load_full()?;
        let target = match (raw_target, parts.uri.path_and_query()) {
            (Some(target), _) => String::from_utf8_lossy(&target.raw).into_owned(),
            (None, Some(target)) => target.as_str().to_owned(),
            (None, None) => "/".to_owned(),
        };
        Some(Box::new(PendingEntry {
            entries,
            arrived: Instant::now(),
            served_by: None,
            method: parts.method.clone(),
            target,
            version: parts.version,
            host: headers::requested_host(parts)
                .unwrap_or_default()
                .to_owned(),
            headers: parts.headers.clone(),
            remote: peer.address,
            status: 0,
            response_bytes: 0,
        }))
    }
}

/// The entry of a request under way. It is sent when dropped, that is when the response has ended in whatever way.
pub(crate) struct PendingEntry {
    entries: Arc<mpsc::Sender<RequestLogEntry>>,
    arrived: Instant,
    served_by: Option<ServedBy>,
    method: Method,
    target: String,
    version: Version,
    host: String,
    headers: HeaderMap,
    remote: SocketAddr,
    pub(crate) status: u16,
    pub(crate) response_bytes: u64,
}

struct ServedBy {
    revision: Key,
    configuration: Arc<str>,
    pod: (Arc<str>, SocketAddr),
}

impl PendingEntry {
    /// Requests that reach no pod are in no queue-proxy's log.
    pub(crate) fn served_by(&mut self, slot: &Slot) {
        self.served_by_container(slot.breaker().key(), &slot.config, slot.container());
    }

    fn served_by_container(&mut self, key: &Key, config: &ClusterConfig, container: &Container) {
        self.served_by = config.hop.is_revision().then(|| ServedBy {
            revision: key.clone(),
            configuration: config.configuration.clone(),
            pod: (container.pod.clone(), container.address),
        });
    }
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        let Some(by) = self.served_by.take() else {
            return;
        };
        let entry = RequestLogEntry {
            revision: by.revision,
            configuration: by.configuration,
            pod: by.pod,
            method: std::mem::take(&mut self.method),
            target: std::mem::take(&mut self.target),
            version: self.version,
            host: std::mem::take(&mut self.host),
            headers: std::mem::take(&mut self.headers),
            remote: self.remote,
            status: self.status,
            response_bytes: self.response_bytes,
            latency: self.arrived.elapsed(),
        };
        if self.entries.try_send(entry).is_err() {
            tracing::debug!("an entry of the request log was dropped, its writer is behind");
        }
    }
}
