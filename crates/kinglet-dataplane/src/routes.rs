//! A route table made ready for requests: header names and values parsed, backends looked up once.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use kinglet_decide::feed::Key;
use kinglet_decide::route::{Choice, RouteTable};

use crate::clusters::{Cluster, Clusters};
use crate::headers;

/// The table in force. Swapped whole.
pub(crate) struct Routes {
    pub(crate) table: Arc<RouteTable>,
    destinations: Box<[Arc<Destination>]>,
}

/// The ready-made twin of one [`Choice`].
pub(crate) struct Destination {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) port: u16,
    /// What every backend is sent.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What only an ordinary Service is sent besides: names that a Revision's container must not see.
    pub(crate) service_headers: Vec<(HeaderName, HeaderValue)>,
    /// The host that the client used, when a domain mapping hides it (`K-Original-Host`); a Revision sees it as Host.
    pub(crate) original_host: Option<HeaderValue>,
    pub(crate) rewrite_host: Option<HeaderValue>,
    pub(crate) probe_hash: Option<HeaderValue>,
}

impl Routes {
    pub(crate) fn compile(table: Arc<RouteTable>, clusters: &Clusters) -> Self {
        let destinations = table
            .choices()
            .iter()
            .map(|choice| Arc::new(Destination::compile(choice, clusters)))
            .collect();
        Self {
            table,
            destinations,
        }
    }

    pub(crate) fn destination(&self, index: usize) -> &Arc<Destination> {
        &self.destinations[index]
    }

    /// Backends that the table names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.destinations
            .iter()
            .map(|destination| destination.cluster.key())
    }
}

impl Destination {
    /// A Revision itself, by no route.
    pub(crate) fn of_revision(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster,
            port: 80,
            headers: Vec::new(),
            service_headers: Vec::new(),
            original_host: None,
            rewrite_host: None,
            probe_hash: None,
        }
    }

    fn compile(choice: &Choice, clusters: &Clusters) -> Self {
        let key = Key::new(
            choice.target.namespace.as_str(),
            choice.target.service.as_str(),
        );
        let mut destination = Self {
            cluster: clusters.of(&key),
            port: choice.target.port,
            headers: Vec::new(),
            service_headers: Vec::new(),
            original_host: None,
            rewrite_host: choice
                .rewrite_host
                .as_deref()
                .and_then(|host| value(choice, "rewriteHost", host)),
            probe_hash: Some(choice.probe_hash.as_str())
                .filter(|hash| !hash.is_empty())
                .and_then(|hash| value(choice, "probe hash", hash)),
        };
        for (name, text) in &choice.append_headers {
            let Some(value) = value(choice, name, text) else {
                continue;
            };
            match HeaderName::try_from(name.as_str()) {
                Ok(name) if name == headers::REVISION || name == headers::NAMESPACE => {
                    destination.service_headers.push((name, value));
                }
                Ok(name) if name == headers::ORIGINAL_HOST => {
                    destination.original_host = Some(value.clone());
                    destination.service_headers.push((name, value));
                }
                Ok(name) => destination.headers.push((name, value)),
                Err(_) => {
                    tracing::warn!(ingress = %choice.ingress, header = name, "appendHeaders: not a header name, left out")
                }
            }
        }
        destination
    }
}

fn value(choice: &Choice, what: &str, text: &str) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text).ok();
    if value.is_none() {
        tracing::warn!(ingress = %choice.ingress, what, "value cannot be sent in a header, left out");
    }
    value
}
