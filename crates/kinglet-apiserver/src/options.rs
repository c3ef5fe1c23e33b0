//! What the root hands in when it makes a server.

use std::sync::Arc;

use kinglet_process::clock::Clock;
use serde_json::Value;

use crate::admission::Admission;
use crate::auth::signer::{Signer, StaticToken};
use crate::conversion::Convert;
use crate::logs::PodLogs;
use crate::streams::PodSessions;

/// Fills a buffer with random bytes.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Facts about a write of our own controllers, for deciding whether it waits for the disk.
#[derive(Debug)]
pub struct WriteAttributes<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// `status` or empty.
    pub subresource: &'a str,
    /// Nothing was there before.
    pub create: bool,
    /// What is written.
    pub object: &'a Value,
    /// What was there.
    pub old: Option<&'a Value>,
}

/// Decides whether an in-process write is synced.
pub type SyncedWrites = Arc<dyn Fn(&WriteAttributes<'_>) -> bool + Send + Sync>;

/// The OpenAPI v3 schema of a built-in kind by group, version and kind: its name and all definitions it reaches (see [`crate::openapi::Builtin`]).
pub type SchemaSource =
    Arc<dyn Fn(&str, &str, &str) -> Option<(String, serde_json::Map<String, Value>)> + Send + Sync>;

/// What the root hands in.
#[derive(Clone)]
pub struct Options {
    /// Our own version, shown as `v1.34.4+kinglet-VERSION`.
    pub version: String,
    /// Where time is read.
    pub clock: Clock,
    /// Where chance comes from (uids, generated names, cluster IPs).
    pub entropy: Entropy,
    /// Defaults and rules for custom resources.
    pub admission: Option<Arc<dyn Admission>>,
    /// Conversions of this process by the name of a CustomResourceDefinition (`eventtypes.eventing.knative.dev`); whatever strategy it names.
    pub conversions: Vec<(String, Convert)>,
    /// Container logs.
    pub logs: Option<Arc<dyn PodLogs>>,
    /// Sessions with containers, and their ports.
    pub sessions: Option<Arc<dyn PodSessions>>,
    /// Which in-process writes wait for the disk. None do by default.
    pub synced: SyncedWrites,
    /// Resources besides Events and Leases that need not reach the disk: (group, plural).
    pub fleeting: Vec<(String, String)>,
    /// Bearer tokens that are simply known.
    pub tokens: Vec<StaticToken>,
    /// Signs and checks service-account tokens; without one they are refused.
    pub signer: Option<Arc<Signer>>,
    /// Schemas of built-in kinds, for `kubectl explain` and validation.
    pub schemas: Option<SchemaSource>,
    /// Network of cluster IPs: the first two bytes of a /16.
    pub service_network: [u8; 2],
    /// The components of the process, which `/readyz` asks for.
    pub components: Arc<dyn Fn() -> Vec<kinglet_process::ComponentHealth> + Send + Sync>,
    /// Extra answer for `/metrics`, if any.
    pub metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: Clock::system(),
            entropy: Arc::new(|buffer| {
                rustls::crypto::aws_lc_rs::default_provider()
                    .secure_random
                    .fill(buffer)
                    .expect("the system's random source works");
            }),
            admission: None,
            conversions: Vec::new(),
            logs: None,
            sessions: None,
            synced: Arc::new(|_| false),
            fleeting: Vec::new(),
            tokens: Vec::new(),
            signer: None,
            schemas: None,
            service_network: [10, 96],
            components: Arc::new(Vec::new),
            metrics: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
