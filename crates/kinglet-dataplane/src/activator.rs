//! The activator's own knowledge of pods: which answer their probe, and which are its to use (spec/serving.md 6.2.2, 6.2.3).
//!
//! Flow: feed -> [`Backends::run`] probes every queue-proxy that is not known to be healthy -> a Revision's healthy pods,
//! of these this activator's share -> the data plane's updates.

mod health;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kinglet_decide::feed::{Key, RevisionBackend, Update};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::feed::Snapshot;
use health::{PodId, Pods};

/// Probes at once over all Revisions: each is a connection.
const PROBES_MAX: usize = 256;
/// What a queue-proxy answers is five bytes.
const ANSWER_BYTES_MAX: usize = 1024;

/// See the module.
pub struct Backends {
    /// `POD_IP`: who this activator is among those that Endpoints name.
    pub own: IpAddr,
    /// `PROBE_TIMEOUT`.
    pub timeout: Duration,
    /// `PROBE_FREQUENCY`: the pace while a pod is not healthy.
    pub every: Duration,
}

struct Revision {
    pods: Pods,
    sent: Option<Arc<RevisionBackend>>,
}

impl Backends {
    /// Runs until either channel ends.
    pub async fn run(
        self,
        mut feed: watch::Receiver<Arc<Snapshot>>,
        updates: mpsc::Sender<Update>,
    ) {
        let mut revisions = BTreeMap::<Key, Revision>::new();
        let mut probes = FuturesUnordered::new();
        let mut last: Option<Key> = None;
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let snapshot = feed.borrow_and_update().clone();
            let mut changed = observe(&mut revisions, &snapshot);
            changed.extend(revisions.keys().cloned());
            if !self
                .tell(&mut revisions, &snapshot, changed, &updates)
                .await
            {
                return;
            }
            // Until the feed changes.
            loop {
                tokio::select! {
                    fed = feed.changed() => match fed {
                        Ok(()) => break,
                        Err(_closed) => return,
                    },
                    Some((key, id, healthy)) = probes.next() => {
                        let Some(revision) = revisions.get_mut(&key) else { continue };
                        if revision.pods.probed(&id, healthy)
                            && !self.tell(&mut revisions, &snapshot, vec![key], &updates).await
                        {
                            return;
                        }
                    }
                    _ = ticks.tick() => {
                        // Where the last round ended, so that pods that never answer do not take every round for themselves.
                        let mut turns: Vec<_> = revisions.iter_mut().collect();
                        let begin = turns.partition_point(|(key, _)| Some(*key) <= last.as_ref());
                        turns.rotate_left(begin);
                        for (key, revision) in turns {
                            let room = PROBES_MAX.saturating_sub(probes.len());
                            if room == 0 {
                                break;
                            }
                            for id in revision.pods.take_to_probe(room) {
                                probes.push(self.probe(key.clone(), id));
                                last = Some(key.clone());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Tells the data plane of the Revisions `keys`, where something has changed for it; `false` when it has ended.
    async fn tell(
        &self,
        revisions: &mut BTreeMap<Key, Revision>,
        snapshot: &Snapshot,
        keys: Vec<Key>,
        updates: &mpsc::Sender<Update>,
    ) -> bool {
        for key in keys {
            let backend = match (revisions.get_mut(&key), snapshot.revisions.get(&key)) {
                (Some(revision), Some(fed)) => {
                    let backend = Arc::new(revision.pods.backend(&key, fed, self.own));
                    if revision.sent.as_ref() == Some(&backend) {
                        continue;
                    }
                    revision.sent = Some(backend.clone());
                    Some(backend)
                }
                (Some(_) | None, _) => None,
            };
            if updates.send(Update::Revision(key, backend)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn probe(&self, key: Key, id: PodId) -> (Key, PodId, bool) {
        let address = id.address;
        let answer = tokio::time::timeout(self.timeout, ask(address)).await;
        let healthy = match answer {
            Ok(Ok(())) => true,
            Ok(Err(reason)) => {
                tracing::debug!(%address, reason, "probing a queue-proxy");
                false
            }
            Err(_elapsed) => false,
        };
        (key, id, healthy)
    }
}

/// Takes over the Revisions of a snapshot; answers with those that are gone.
fn observe(revisions: &mut BTreeMap<Key, Revision>, snapshot: &Snapshot) -> Vec<Key> {
    for (key, fed) in &snapshot.revisions {
        let revision = revisions.entry(key.clone()).or_insert_with(|| Revision {
            pods: Pods::default(),
            sent: None,
        });
        revision.pods.observe(fed);
    }
    let gone: Vec<Key> = revisions
        .keys()
        .filter(|key| !snapshot.revisions.contains_key(key))
        .cloned()
        .collect();
    for key in &gone {
        revisions.remove(key);
    }
    gone
}

/// 200 and `queue` is the one good answer.
async fn ask(address: SocketAddr) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| fail(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fail(&error))?;
    let request = Request::get("/healthz")
        .header("host", address.to_string())
        .header("user-agent", "Knative-Activator-Probe")
        .header("k-network-probe", "queue")
        .body(Empty::<Bytes>::new())
        .map_err(|error| fail(&error))?;
    let exchange = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(|error| fail(&error))?
            .into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        match (head.status.as_u16(), &*body) {
            (200, b"queue") => Ok(()),
            (status, body) => Err(format!(
                "status {status}: {}",
                crate::response::echo(&String::from_utf8_lossy(body))
            )),
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = exchange.as_mut() => answer,
        _ = connection => exchange.await,
    }
}
