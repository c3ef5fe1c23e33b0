//! What a queue-proxy's request log says about each request (spec/serving.md 6.3.8), and the measuring of requests.
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
use crate::metrics::Measures;
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
    measures: ArcSwapOption<Measures>,
}

impl RequestLogs {
    /// Measures every request from now on.
    pub(crate) fn measure(&self, measures: Arc<Measures>) {
        self.measures.store(Some(measures));
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// `probes`: those that are answered in a pod's place have an entry too (`logging.enable-probe-request-log`).
    pub(crate) fn send_to(&self, entries: Option<mpsc::Sender<RequestLogEntry>>, probes: bool) {
        self.probes.store(probes, Ordering::Relaxed);
        let enabled = entries.is_some() || self.measures.load().is_some();
        self.enabled.store(enabled, Ordering::Relaxed);
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
            // A probe is nobody's request.
            entry.measures = None;
            entry.status = status.as_u16();
            entry.served_by_container(breaker.key(), &config, &container);
        }
    }

    /// Begins the entry of a request, when requests are logged or measured.
    pub(crate) fn begin(
        &self,
        peer: &Peer,
        parts: &Parts,
        raw_target: Option<&RawTarget>,
    ) -> Option<Box<PendingEntry>> {
        if !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        let line = self.entries.load_full().map(|entries| {
            let target = match (raw_target, parts.uri.path_and_query()) {
                (Some(target), _) => String::from_utf8_lossy(&target.raw).into_owned(),
                (None, Some(target)) => target.as_str().to_owned(),
                (None, None) => "/".to_owned(),
            };
            Line {
                entries,
                target,
                version: parts.version,
                host: headers::requested_host(parts)
                    .unwrap_or_default()
                    .to_owned(),
                headers: parts.headers.clone(),
                remote: peer.address,
            }
        });
        Some(Box::new(PendingEntry {
            line,
            measures: self.measures.load_full(),
            arrived: Instant::now(),
            served_by: None,
            method: parts.method.clone(),
            status: 0,
            response_bytes: 0,
        }))
    }
}

/// The entry of a request under way. It is sent, and the request measured, when dropped: that is when the response has ended
/// in whatever way.
pub(crate) struct PendingEntry {
    line: Option<Line>,
    measures: Option<Arc<Measures>>,
    arrived: Instant,
    served_by: Option<ServedBy>,
    method: Method,
    pub(crate) status: u16,
    pub(crate) response_bytes: u64,
}

/// What the request log alone needs.
struct Line {
    entries: Arc<mpsc::Sender<RequestLogEntry>>,
    target: String,
    version: Version,
    host: String,
    headers: HeaderMap,
    remote: SocketAddr,
}

struct ServedBy {
    at: Instant,
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
        let at = self.served_by.as_ref().map(|by| by.at);
        self.served_by = config.hop.is_revision().then(|| ServedBy {
            at: at.unwrap_or_else(Instant::now),
            revision: key.clone(),
            configuration: config.configuration.clone(),
            pod: (container.pod.clone(), container.address),
        });
    }
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        let by = self.served_by.take();
        if let Some(measures) = &self.measures
            && self.status > 0
        {
            let container = by.as_ref().map(|by| by.at.elapsed());
            measures.request(&self.method, self.status, self.arrived.elapsed(), container);
        }
        let (Some(by), Some(line)) = (by, self.line.take()) else {
            return;
        };
        let entry = RequestLogEntry {
            revision: by.revision,
            configuration: by.configuration,
            pod: by.pod,
            method: std::mem::take(&mut self.method),
            target: line.target,
            version: line.version,
            host: line.host,
            headers: line.headers,
            remote: line.remote,
            status: self.status,
            response_bytes: self.response_bytes,
            latency: self.arrived.elapsed(),
        };
        if line.entries.try_send(entry).is_err() {
            tracing::debug!("an entry of the request log was dropped, its writer is behind");
        }
    }
}
