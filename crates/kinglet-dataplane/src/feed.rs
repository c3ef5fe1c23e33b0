//! What a gateway or an activator in a process of its own is told: JSON lines, from a file that is read whole each time, or
//! over a Unix socket of the control plane.
//!
//! Flow: [`FeedFile::read`], or [`serve`] -> [`FeedSocket::run`] -> [`Snapshot`] in a watch channel -> [`follow`] (gateway) or
//! [`crate::activator::Backends`] (activator) -> the data plane's updates. The writer of a file replaces it by renaming
//! another over it and sends SIGHUP. Over a socket everything is told first, then what changes.
//! Always: what was understood before stays in force until a file has been understood to its end, or a version over the
//! socket is complete, and while the socket is broken.

mod line;
mod socket;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kinglet_decide::feed::{Key, ServiceBackend, Update};
use kinglet_decide::route::{Certificate, IngressRule, RouteTable};
use tokio::sync::{mpsc, watch};

pub use line::{FedPod, FedRevision, FeedError};
pub use socket::{FeedSocket, serve};

/// Largest feed: some 20,000 Services at 3 kB each.
const FEED_BYTES_MAX: u64 = 64 << 20;

/// What group and others may do with a file.
const OTHERS: u32 = 0o077;

/// All that a feed says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// How many have been read; the version of the route table.
    pub version: u64,
    /// Rules of all Ingresses.
    pub rules: Vec<IngressRule>,
    /// Certificates of https listeners, by Secret.
    pub certificates: BTreeMap<Key, Arc<Certificate>>,
    /// Kubernetes Services.
    pub services: BTreeMap<Key, ServiceBackend>,
    /// Revisions, with their queue-proxies.
    pub revisions: BTreeMap<Key, FedRevision>,
}

/// A feed in a file.
#[derive(Clone, Debug)]
pub struct FeedFile {
    path: PathBuf,
}

impl FeedFile {
    /// The feed at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it.
    pub fn read(&self, version: u64) -> Result<Snapshot, FeedError> {
        let unreadable = |error: std::io::Error| FeedError::Read {
            path: self.path.display().to_string(),
            error,
        };
        let file = std::fs::File::open(&self.path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        let mut text = String::new();
        file.take(FEED_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if text.len() as u64 > FEED_BYTES_MAX {
            return Err(FeedError::TooLarge {
                path: self.path.display().to_string(),
                most: FEED_BYTES_MAX >> 20,
            });
        }
        let snapshot = Snapshot::parse(&text, version)?;
        if !snapshot.certificates.is_empty() && mode & OTHERS != 0 {
            tracing::warn!(
                feed = %self.path.display(),
                mode = format!("{:04o}", mode & 0o7777),
                "the feed holds private keys and others may read it: chmod 600"
            );
        }
        Ok(snapshot)
    }
}

/// Tells a gateway what changes from one snapshot to the next: Services first, so that a new route finds its backend.
/// Ends with either channel.
pub async fn follow(mut feed: watch::Receiver<Arc<Snapshot>>, updates: mpsc::Sender<Update>) {
    let mut before = Arc::<Snapshot>::default();
    loop {
        let now = feed.borrow_and_update().clone();
        for update in changes(&before, &now) {
            if updates.send(update).await.is_err() {
                return;
            }
        }
        before = now;
        if feed.changed().await.is_err() {
            return;
        }
    }
}

fn changes(before: &Snapshot, now: &Snapshot) -> Vec<Update> {
    let mut changes: Vec<Update> = now
        .services
        .iter()
        .filter(|(key, service)| before.services.get(key) != Some(service))
        .map(|(key, service)| Update::Service(key.clone(), Some(Arc::new(service.clone()))))
        .collect();
    // Acknowledged by its version, also when the rules are the same.
    let table = RouteTable::build(now.version, now.rules.clone());
    changes.push(Update::Routes(Arc::new(table)));
    let gone = before
        .services
        .keys()
        .filter(|key| !now.services.contains_key(key));
    changes.extend(gone.map(|key| Update::Service(key.clone(), None)));
    changes
}
