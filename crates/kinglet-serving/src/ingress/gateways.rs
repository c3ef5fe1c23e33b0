//! The gateways that must serve an Ingress before it is Ready: all of them.
//!
//! A gateway in this process says which route table it has in force. One in another process is asked for each host,
//! as Knative's probers ask: it must answer with the hash of what the Ingress says (spec/serving.md 6.5).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, select_all};
use tokio::sync::watch;

/// Who serves Ingresses.
#[derive(Clone, Default)]
pub struct Gateways {
    /// Name of each gateway in this process, and the version of the route table that it has in force.
    pub in_process: Vec<(Arc<str>, watch::Receiver<u64>)>,
    /// Gateways in other processes.
    pub probed: Option<Probed>,
}

/// Gateways in other processes.
#[derive(Clone)]
pub struct Probed {
    /// A listener of each that serves every rule, also those for callers inside.
    pub addresses: watch::Receiver<BTreeSet<SocketAddr>>,
    /// Asks one of them.
    pub probe: Arc<dyn ProbeGateway>,
}

/// Asks a gateway what it serves.
pub trait ProbeGateway: Send + Sync {
    /// Sends `GET /healthz` for `host` with `K-Network-Probe: probe` and `K-Network-Hash: override` to `at`. The caller
    /// bounds how long that takes.
    fn probe<'a>(&'a self, at: SocketAddr, host: &'a str, tls: bool) -> BoxFuture<'a, ProbeAnswer>;
}

/// What a gateway answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// A response.
    Status {
        /// Its status.
        code: u16,
        /// Its `K-Network-Hash`.
        hash: Option<String>,
    },
    /// None, and why.
    Unreachable(String),
}

impl Gateways {
    /// One gateway, in this process.
    pub fn of_process(name: &str, applied: watch::Receiver<u64>) -> Self {
        Self {
            in_process: vec![(name.into(), applied)],
            probed: None,
        }
    }

    /// Gateways in other processes.
    pub fn in_other_processes(probed: Probed) -> Self {
        Self {
            in_process: Vec::new(),
            probed: Some(probed),
        }
    }

    /// Whether every gateway is in another process, and reaches a Revision by its public Service as on a cluster.
    pub(crate) fn are_elsewhere(&self) -> bool {
        self.in_process.is_empty() && self.probed.is_some()
    }

    /// The last table that all gateways of this process have in force. Without any gateway nothing is in force; where all
    /// are probed, every table that was built counts, since the probes decide.
    pub(super) fn applied(&self) -> u64 {
        let versions = self.in_process.iter().map(|(_, applied)| *applied.borrow());
        let none = if self.probed.is_some() { u64::MAX } else { 0 };
        versions.min().unwrap_or(none)
    }

    /// The gateways of this process that do not have this table in force yet.
    pub(super) fn behind(&self, version: u64) -> Vec<Arc<str>> {
        self.in_process
            .iter()
            .filter(|(_, applied)| *applied.borrow() < version)
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Waits until a gateway of this process has another table in force. Fails with the name of one that has ended.
    pub(super) async fn changed(&mut self) -> Result<(), Arc<str>> {
        if self.in_process.is_empty() {
            return std::future::pending().await;
        }
        let each = self.in_process.iter_mut().map(|(name, applied)| {
            async move { applied.changed().await.map_err(|_| Arc::clone(name)) }.boxed()
        });
        select_all(each).await.0
    }
}
