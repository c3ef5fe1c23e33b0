//! Which of Knative's components a data plane is, and what follows from it for each hop (spec/serving.md 6, spec/cluster.md 3.6).

use std::sync::atomic::{AtomicU8, Ordering};

use kinglet_decide::feed::Protocol;

use crate::response::ProxyError;

/// Which component, or all of them in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Gateway, activator and queue-proxy: from the client to the user container.
    #[default]
    Whole,
    /// From the client to a Kubernetes Service, by the route table.
    Gateway,
    /// From a gateway to queue-proxies; wakes Revisions from zero.
    Activator,
    /// From an activator or a gateway to the one user container of its pod.
    Queue,
}

/// Whether a component takes part, as it tells those who probe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// It does.
    Ready = 0,
    /// It waits for what it needs first: an activator for its autoscaler.
    NotConnected = 1,
    /// It was asked to stop.
    Stopping = 2,
}

/// The [`Health`] in force.
#[derive(Default)]
pub(crate) struct HealthCell(AtomicU8);

impl HealthCell {
    pub(crate) fn set(&self, health: Health) {
        // Who stops does not come back, whatever connects meanwhile.
        let stopping = Health::Stopping as u8;
        let change = |current| (current != stopping).then_some(health as u8);
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    pub(crate) fn get(&self) -> Health {
        match self.0.load(Ordering::Acquire) {
            0 => Health::Ready,
            1 => Health::NotConnected,
            _ => Health::Stopping,
        }
    }
}

impl Role {
    /// The hop to a Revision's endpoints.
    pub(crate) fn hop(self) -> Hop {
        match self {
            Self::Whole => Hop::Whole,
            Self::Gateway => Hop::Service,
            Self::Activator => Hop::QueueProxy,
            Self::Queue => Hop::UserContainer,
        }
    }
}

/// One hop of a request's way: it decides headers, timeouts, counting and the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Gateway to a Kubernetes Service: neither counted nor limited.
    Service,
    /// Gateway to a user container, with all that activator and queue-proxy do between them.
    Whole,
    /// Activator to queue-proxy.
    QueueProxy,
    /// Queue-proxy to its user container.
    UserContainer,
}

impl Hop {
    /// Whether its requests are those of a Revision: counted, limited and timed.
    pub(crate) fn is_revision(self) -> bool {
        self != Self::Service
    }

    /// What is spoken to the backend. Activator and queue-proxy pass on the version that they are spoken to in.
    pub(crate) fn protocol(self, configured: Protocol, client_speaks_h2: bool) -> Protocol {
        match self {
            Self::Service | Self::Whole => configured,
            Self::QueueProxy | Self::UserContainer if client_speaks_h2 => Protocol::H2c,
            Self::QueueProxy | Self::UserContainer => Protocol::Http1,
        }
    }

    /// What a request is told whose time is up while it waits for a slot.
    pub(crate) fn timeout_waiting(self) -> ProxyError {
        match self {
            Self::UserContainer => ProxyError::Timeout,
            Self::Service | Self::Whole | Self::QueueProxy => ProxyError::TimeoutWaiting,
        }
    }

    /// What a request is told whose time is up once it has a slot.
    pub(crate) fn timeout(self) -> ProxyError {
        match self {
            Self::QueueProxy => ProxyError::TimeoutWaiting,
            Self::Service | Self::Whole | Self::UserContainer => ProxyError::Timeout,
        }
    }

    /// The same, appended to a response that has begun.
    pub(crate) fn timeout_text(self) -> &'static str {
        match self {
            Self::QueueProxy => "activator request timeout",
            Self::Service | Self::Whole | Self::UserContainer => "request timeout",
        }
    }
}
