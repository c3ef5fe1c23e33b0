//! The settings of a backend that its requests go by.

use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::feed::{Protocol, RevisionBackend};

use crate::role::{Hop, Role};

/// Requests that wait in a queue-proxy, for each that its container serves at once (spec/serving.md 6.3.2).
const QUEUE_PROXY_DEPTH: usize = 10;

/// The settings of a backend that its requests go by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClusterConfig {
    pub(crate) hop: Hop,
    /// Name of the Revision's Configuration, for logs.
    pub(crate) configuration: Arc<str>,
    pub(crate) concurrency: u32,
    /// Requests that may wait, where that is not [`crate::Options::queue_depth`].
    pub(crate) depth: Option<usize>,
    pub(crate) timeout: Duration,
    pub(crate) response_start: Duration,
    pub(crate) idle: Duration,
    pub(crate) protocol: Protocol,
}

impl ClusterConfig {
    pub(crate) fn of(backend: &RevisionBackend, role: Role) -> Self {
        let concurrency = backend.container_concurrency;
        Self {
            hop: role.hop(),
            configuration: backend.configuration.clone(),
            concurrency,
            depth: (role == Role::Queue && concurrency > 0)
                .then(|| QUEUE_PROXY_DEPTH * concurrency as usize),
            timeout: backend.timeout,
            response_start: backend.response_start_timeout,
            idle: backend.idle_timeout,
            protocol: backend.protocol,
        }
    }

    pub(crate) fn of_service(protocol: Protocol) -> Self {
        Self {
            hop: Hop::Service,
            configuration: "".into(),
            concurrency: 0,
            depth: None,
            timeout: Duration::ZERO,
            response_start: Duration::ZERO,
            idle: Duration::ZERO,
            protocol,
        }
    }
}
