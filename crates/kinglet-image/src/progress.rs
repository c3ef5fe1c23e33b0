//! How far a pull has come, reported to whoever shows it.

use std::sync::Arc;

/// One step of a pull.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum ProgressEvent {
    /// A source is being asked.
    Asking {
        /// The reference there.
        source: String,
    },
    /// A source could not serve; the next one is tried.
    SourceFailed {
        /// The reference there.
        source: String,
        /// Its answer.
        message: String,
    },
    /// A layer is needed.
    LayerStarted {
        /// Digest.
        layer: String,
        /// Compressed size in bytes, 0 when unknown.
        bytes_total: u64,
    },
    /// Bytes of a layer have arrived.
    LayerBytes {
        /// Digest.
        layer: String,
        /// So far.
        bytes: u64,
    },
    /// A layer is unpacked (or was there before).
    LayerDone {
        /// Digest.
        layer: String,
    },
    /// The image is ready.
    Done {
        /// Manifest digest.
        digest: String,
    },
}

/// Receives the steps; must not block.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressEvent) + Send + Sync>);

impl Progress {
    /// Calls `show` for each step.
    pub fn new(show: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }

    /// Shows nothing.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    pub(crate) fn report(&self, event: ProgressEvent) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
