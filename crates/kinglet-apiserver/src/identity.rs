//! Who asks, and from where.

use std::sync::Arc;

/// A user as Kubernetes knows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `admin`, `system:serviceaccount:NS:NAME`.
    pub name: String,
    /// Unique id, may be empty.
    pub uid: String,
    /// Groups; `system:masters` may do everything.
    pub groups: Vec<String>,
    /// Where the request came in.
    pub origin: Origin,
}

/// Where a request came in: decides durability (who waits for the disk) and trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Our own controllers, over no socket. Their writes trail behind, and they may do everything.
    InProcess,
    /// The listener. What it acknowledges is on disk.
    Listener,
}

pub(crate) const MASTERS: &str = "system:masters";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const ANONYMOUS: &str = "system:anonymous";

impl Identity {
    /// One of our own components.
    pub fn in_process(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: String::new(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
            origin: Origin::InProcess,
        }
    }

    /// Somebody at the listener.
    pub fn remote(name: &str, groups: Vec<String>) -> Self {
        let mut groups = groups;
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            name: name.to_owned(),
            uid: String::new(),
            groups,
            origin: Origin::Listener,
        }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".to_owned()],
            origin: Origin::Listener,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

/// Shared between the requests of a connection.
pub(crate) type SharedIdentity = Arc<Identity>;
