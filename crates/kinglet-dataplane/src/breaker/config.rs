//! The settings of a backend that its requests go by.

use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::feed::{Protocol, RevisionBackend};

/// The settings of a backend that its requests go by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClusterConfig {
    /// A Revision (metered, woken from zero) rather than an ordinary Service.
    pub(crate) revision: bool,
    /// Name of the Revision's Configuration, for logs.
    pub(crate) configuration: Arc<str>,
    pub(crate) concurrency: u32,
    pub(crate) timeout: Duration,
    pub(crate) response_start: Duration,
    pub(crate) idle: Duration,
    pub(crate) protocol: Protocol,
}

impl ClusterConfig {
    pub(crate) fn of(backend: &RevisionBackend) -> Self {
        Self {
            revision: true,
            configuration: backend.configuration.clone(),
            concurrency: backend.container_concurrency,
            timeout: backend.timeout,
            response_start: backend.response_start_timeout,
            idle: backend.idle_timeout,
            protocol: backend.protocol,
        }
    }

    pub(crate) fn of_service(protocol: Protocol) -> Self {
        Self {
            revision: false,
            configuration: "".into(),
            concurrency: 0,
            timeout: Duration::ZERO,
            response_start: Duration::ZERO,
            idle: Duration::ZERO,
            protocol,
        }
    }
}
