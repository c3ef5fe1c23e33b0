//! What a handler is given: the request as read so far, who asks, and the server's state.

use std::sync::Arc;

use bytes::Bytes;

use crate::accept::Form;
use crate::identity::{Identity, Origin};
use crate::kinds::Kind;
use crate::path::{Query, RequestInfo};
use crate::state::ServerState;
use crate::status::Status;
use crate::streams::Upgrade;

/// One request for a resource.
pub(crate) struct RequestContext<'a> {
    pub(crate) server: &'a Arc<ServerState>,
    pub(crate) user: &'a Identity,
    pub(crate) kind: Arc<Kind>,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) form: Form,
    pub(crate) content_type: String,
    pub(crate) agent: String,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    /// What strict decoding has found so far.
    pub(crate) found: Vec<String>,
    pub(crate) verb: &'static str,
    /// The subresource whose owner writes, where the parent is what is written.
    pub(crate) through: &'static str,
    /// The other protocol that the client wants to speak.
    pub(crate) upgrade: Option<Upgrade>,
}

impl RequestContext<'_> {
    /// Nothing is to be stored.
    pub(crate) fn dry_run(&self) -> bool {
        self.query.has("dryRun")
    }

    pub(crate) fn in_process(&self) -> bool {
        self.user.origin == Origin::InProcess
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.kind.group, &self.kind.plural, name)
    }

    /// Who is written down as the owner of fields.
    pub(crate) fn manager(&self) -> &str {
        match self.query.get("fieldManager") {
            "" => self
                .agent
                .split('/')
                .next()
                .filter(|agent| !agent.is_empty())
                .unwrap_or("unknown"),
            manager => manager,
        }
    }
}

/// The name of the options that a verb takes.
pub(crate) fn options_kind(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => "ListOptions",
    }
}
