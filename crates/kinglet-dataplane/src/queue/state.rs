//! What the requests of a queue-proxy look at: its container, whether it drains, and when the last request came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::probes::Checks;
use crate::clusters::Cluster;
use crate::routes::Destination;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Drain {
    #[default]
    Serving,
    /// A user container asked for it.
    Draining,
    /// The process was told to end: no way back.
    Terminating,
}

/// See the module.
pub(crate) struct QueueState {
    user_container: ArcSwapOption<UserContainer>,
    checks: ArcSwapOption<Checks>,
    drain: watch::Sender<Drain>,
    /// The last request, or the beginning of the drain: nanoseconds of the data plane's clock.
    busy_at: AtomicU64,
}

struct UserContainer {
    counted: Arc<Destination>,
    uncounted: Arc<Destination>,
}

impl Default for QueueState {
    fn default() -> Self {
        Self {
            user_container: ArcSwapOption::empty(),
            checks: ArcSwapOption::empty(),
            drain: watch::Sender::new(Drain::Serving),
            busy_at: AtomicU64::new(0),
        }
    }
}

impl QueueState {
    /// The container, and the same once more for requests that are neither counted nor limited.
    pub(crate) fn set_user_container(&self, clusters: Option<(Arc<Cluster>, Arc<Cluster>)>) {
        self.user_container
            .store(clusters.map(|(counted, uncounted)| {
                Arc::new(UserContainer {
                    counted: Arc::new(Destination::of_revision(counted)),
                    uncounted: Arc::new(Destination::of_revision(uncounted)),
                })
            }));
    }

    pub(crate) fn user_container(&self, counted: bool) -> Option<Arc<Destination>> {
        let user = self.user_container.load();
        let user = user.as_ref()?;
        Some(match counted {
            true => user.counted.clone(),
            false => user.uncounted.clone(),
        })
    }

    pub(super) fn set_checks(&self, checks: Checks) {
        self.checks.store(Some(Arc::new(checks)));
    }

    /// Whether the user container answers its readiness probes; whoever asks meanwhile shares one run of them.
    pub(crate) async fn is_ready(&self) -> bool {
        match self.checks.load_full() {
            Some(checks) => checks.pass().await,
            None => false,
        }
    }

    pub(crate) fn request_came(&self, now: u64) {
        self.busy_at.fetch_max(now, Ordering::AcqRel);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.drain.borrow() != Drain::Serving
    }

    pub(super) fn drain(&self, now: u64) {
        self.begin(Drain::Draining, now);
    }

    pub(super) fn terminate(&self, now: u64) {
        self.begin(Drain::Terminating, now);
    }

    fn begin(&self, drain: Drain, now: u64) {
        self.drain.send_if_modified(|current| {
            if *current == Drain::Serving {
                self.busy_at.fetch_max(now, Ordering::AcqRel);
            }
            let changes = *current != drain && *current != Drain::Terminating;
            if changes {
                *current = drain;
            }
            changes
        });
    }

    pub(super) fn reset_unless_terminating(&self) {
        self.drain.send_if_modified(|current| {
            let resets = *current == Drain::Draining;
            if resets {
                *current = Drain::Serving;
            }
            resets
        });
    }

    pub(super) fn changes(&self) -> watch::Receiver<Drain> {
        self.drain.subscribe()
    }

    /// Since when it has been quiet; `None` when it does not drain.
    pub(super) fn quiet_since(&self) -> Option<u64> {
        self.is_draining()
            .then(|| self.busy_at.load(Ordering::Acquire))
    }
}
