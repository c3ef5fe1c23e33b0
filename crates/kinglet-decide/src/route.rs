//! Host, path and headers to one backend, chosen evenly among the splits.
//!
//! Flow: `serving` reads KIngress objects into [`IngressRule`]s -> [`RouteTable::build`] -> the data plane asks
//! [`RouteTable::find`] for every request.
//! Always: a table never changes once built, apart from the turn counters of its splits; `find` takes no lock
//! and allocates nothing; equal rules give equal tables whatever order their hosts were listed in.

mod build;
mod certificate;
mod host;
mod spread;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

pub use certificate::Certificate;
pub use host::bare as bare_host;
pub use spread::Spread;

use crate::feed::Key;

/// Where a rule may be reached from (KIngress `visibility`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Visibility {
    /// From everywhere: the external gateway and the local one.
    #[default]
    External,
    /// Only through the cluster-local gateway.
    ClusterLocal,
}

/// What plain HTTP does for a rule (KIngress `httpOption`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HttpOption {
    /// Serve it.
    #[default]
    Enabled,
    /// Answer 301 to https; applies to external rules only.
    Redirected,
}

/// One rule of one KIngress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRule {
    /// The KIngress it comes from.
    pub ingress: Key,
    /// Hosts, without port; compared without regard to case.
    pub hosts: Vec<String>,
    /// Which gateway serves them.
    pub visibility: Visibility,
    /// Plain HTTP: serve or redirect.
    pub http_option: HttpOption,
    /// Hash of the KIngress, sent in place of a `K-Network-Hash: override` (spec 6.5); empty when unused.
    pub probe_hash: String,
    /// What https listeners show for these hosts; of several, the first that the client understands.
    pub certificates: Vec<Arc<Certificate>>,
    /// Paths; their order matters only between equals.
    pub paths: Vec<PathRule>,
}

/// One path of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PathRule {
    /// Literal prefix; `None` is every path.
    pub path: Option<String>,
    /// Header name and exact value; all must match.
    pub headers: Vec<(String, String)>,
    /// Headers set on the way to the backend, over what the client sent.
    pub append_headers: Vec<(String, String)>,
    /// Host that the backend sees, when not the client's.
    pub rewrite_host: Option<String>,
    /// Backends; those of 0 percent get nothing.
    pub splits: Vec<Split>,
}

/// A share of a path's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Share; weights, so that they need not add up to 100. (A lone split without percent means 100: the caller says so.)
    pub percent: u8,
    /// Who gets it.
    pub target: Target,
    /// Headers set for this share; they win over the path's.
    pub append_headers: Vec<(String, String)>,
}

/// A Kubernetes Service and port, as in KIngress. A Revision's Service has the Revision's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Port on the Service.
    pub port: u16,
}

/// An immutable routing table; swapped whole.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Grows with each table; the data plane acknowledges it.
    pub version: u64,
    hosts: HashMap<Box<str>, HostEntry>,
    choices: Vec<Choice>,
    conflicts: Vec<Conflict>,
}

/// Everything a request needs to know once its split is chosen.
///
/// Numbered densely ([`RouteTable::choices`]), so that the data plane can keep compiled twins beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The KIngress it comes from.
    pub ingress: Key,
    /// Who gets the request.
    pub target: Target,
    /// Path headers and split headers together, the split's winning; names in lower case, sorted.
    pub append_headers: Vec<(String, String)>,
    /// Host that the backend sees, when not the client's.
    pub rewrite_host: Option<String>,
    /// See [`IngressRule::probe_hash`].
    pub probe_hash: String,
}

/// A host that two KIngresses claim; the first rule in the list keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The host, in lower case.
    pub host: String,
    /// Who has it.
    pub owner: Key,
    /// Whose rule was left out for this host.
    pub rejected: Key,
}

/// A route that was found.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// Index into [`RouteTable::choices`].
    pub index: usize,
    /// The choice at that index.
    pub choice: &'t Choice,
    /// Plain HTTP must be sent to https.
    pub redirect: bool,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// The host is not served here (or only inside the cluster: outsiders cannot tell).
    Host,
    /// The host is served, this path (with these headers) is not.
    Path,
}

#[derive(Debug)]
struct HostEntry {
    owner: Key,
    /// What outsiders may reach: longest prefix first, then most headers, then as listed.
    external: Vec<Path>,
    /// What the local gateway serves: the rules above and the cluster-local ones.
    local: Vec<Path>,
    /// What https listeners show outsiders.
    external_certificates: Vec<Arc<Certificate>>,
    /// What the local gateway shows.
    local_certificates: Vec<Arc<Certificate>>,
}

#[derive(Debug)]
struct Path {
    prefix: Box<str>,
    headers: Vec<(Box<str>, Box<[u8]>)>,
    redirect: bool,
    spread: Arc<Spread>,
}

impl RouteTable {
    /// The route of a request that arrived at the gateway for `visibility`.
    ///
    /// `host` may carry a port and any case; `header` answers the first value of a header by its lower-case name.
    pub fn find<'h>(
        &self,
        visibility: Visibility,
        host: &str,
        path: &str,
        header: impl Fn(&str) -> Option<&'h [u8]>,
    ) -> Result<Matched<'_>, NoRoute> {
        let entry = host::with_lower_case(host, |host| self.hosts.get(host))
            .flatten()
            .ok_or(NoRoute::Host)?;
        let paths = match visibility {
            Visibility::External => &entry.external,
            Visibility::ClusterLocal => &entry.local,
        };
        if paths.is_empty() {
            return Err(NoRoute::Host);
        }
        let found = paths.iter().find(|candidate| {
            path.starts_with(&*candidate.prefix)
                && candidate
                    .headers
                    .iter()
                    .all(|(name, value)| header(name) == Some(value))
        });
        let found = found.ok_or(NoRoute::Path)?;
        let index = found.spread.next();
        Ok(Matched {
            index,
            choice: &self.choices[index],
            redirect: found.redirect && visibility == Visibility::External,
        })
    }

    /// All choices, by index.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Hosts that more than one KIngress claims.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// Every host that has certificates for listeners of this visibility, with them. A KIngress says nothing about hosts
    /// that belong to another one.
    pub fn certificates(
        &self,
        visibility: Visibility,
    ) -> impl Iterator<Item = (&str, &[Arc<Certificate>])> {
        self.hosts
            .iter()
            .map(move |(host, entry)| {
                let certificates = match visibility {
                    Visibility::External => &entry.external_certificates,
                    Visibility::ClusterLocal => &entry.local_certificates,
                };
                (&**host, certificates.as_slice())
            })
            .filter(|(_, certificates)| !certificates.is_empty())
    }

    /// Every host with the widest visibility it has, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, Visibility)> {
        self.hosts.iter().map(|(host, entry)| {
            (
                &**host,
                if entry.external.is_empty() {
                    Visibility::ClusterLocal
                } else {
                    Visibility::External
                },
            )
        })
    }
}
