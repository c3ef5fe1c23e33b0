//! Fills the graph with the metadata of one kind.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kinglet_reconcile::feed::Sink;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;

use super::Collector;
use super::discover::ResourceKind;
use super::graph::Metadata;

#[derive(Deserialize)]
struct ObservedMetadata {
    metadata: Metadata,
}

/// The sink of one kind's feed.
pub(super) struct KindSink {
    collector: Arc<Collector>,
    kind: Arc<ResourceKind>,
    listing: Mutex<Option<HashSet<Arc<str>>>>,
    synced: watch::Sender<bool>,
    abandoned: AtomicBool,
}

impl KindSink {
    pub(super) fn new(collector: Arc<Collector>, kind: Arc<ResourceKind>) -> Self {
        Self {
            collector,
            kind,
            listing: Mutex::default(),
            synced: watch::Sender::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    pub(super) fn kind(&self) -> &Arc<ResourceKind> {
        &self.kind
    }

    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        let wakes = self.collector.graph.lock().forget_kind(&self.kind);
        self.collector.wake(wakes);
    }

    pub(super) async fn wait_synced(&self) {
        // The sender lives as long as we do.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

impl Sink for KindSink {
    fn begin(&self) {
        *self.listing.lock() = Some(HashSet::new());
    }

    fn applied(&self, object: &str) -> Result<(), serde_json::Error> {
        let observed: ObservedMetadata = serde_json::from_str(object)?;
        if let Some(listing) = &mut *self.listing.lock() {
            listing.insert(Arc::from(observed.metadata.uid.as_str()));
        }
        let wakes = self
            .collector
            .graph
            .lock()
            .put(&self.kind, observed.metadata);
        self.collector.wake(wakes);
        Ok(())
    }

    fn deleted(&self, object: &str) -> Result<(), serde_json::Error> {
        let observed: ObservedMetadata = serde_json::from_str(object)?;
        let wakes = self.collector.graph.lock().remove(&observed.metadata.uid);
        self.collector.wake(wakes);
        self.collector.left(&observed.metadata.namespace);
        Ok(())
    }

    fn end(&self, _version: u64) {
        let Some(mentioned) = self.listing.lock().take() else {
            return;
        };
        let wakes = self.collector.graph.lock().sweep(&self.kind, &mentioned);
        self.collector.wake(wakes);
        self.synced.send_replace(true);
    }

    fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}
