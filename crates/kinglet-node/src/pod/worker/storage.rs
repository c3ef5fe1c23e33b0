//! Eviction of a pod that uses more of the node's disk than it may (`sizeLimit`, `ephemeral-storage`).

use std::sync::Arc;
use std::time::Duration;

use kinglet_reconcile::Severity;

use super::{Message, Worker};
use crate::volumes::usage;

/// How often a pod with limits is measured (a kubelet's period).
const MEASURE_PERIOD: Duration = Duration::from_secs(10);

impl Worker {
    /// Measures the pod as long as it lives, if its spec limits anything.
    pub(super) fn watch_storage(&self) {
        let limits = Arc::new(usage::limits(&self.pod, &self.directories));
        if limits.is_empty() {
            return;
        }
        let sender = self.sender.clone();
        let work = self.watched("storage limits", async move {
            loop {
                tokio::time::sleep(MEASURE_PERIOD).await;
                let limits = Arc::clone(&limits);
                let measured = tokio::task::spawn_blocking(move || {
                    usage::exceeded(&limits).map(|limit| limit.message.clone())
                });
                if let Ok(Some(message)) = measured.await {
                    let _ = sender.send(Message::StorageExceeded(message)).await;
                    return;
                }
            }
        });
        self.tasks.spawn_cancellable("storage limits", work);
    }

    /// Ends the pod for good; its containers are killed and its volumes given back at once.
    pub(super) fn evict(&mut self, message: String) {
        if self.termination.is_some() || self.finished.is_some() {
            return;
        }
        self.shared.event(
            &self.pod,
            None,
            Severity::Warning,
            "Evicted",
            message.clone(),
        );
        self.failure = Some(("Evicted", message));
        self.finish(false);
        let trash = Arc::clone(&self.shared.trash);
        let volumes = self.directories.disk.join("volumes");
        self.tasks.spawn("evicted volumes", async move {
            let discard = move || trash.discard(&volumes);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(discard).await {
                tracing::warn!(%error, "the volumes of an evicted pod stay until it is deleted");
            }
        });
    }
}
