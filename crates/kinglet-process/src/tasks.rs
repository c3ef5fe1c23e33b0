//! Tasks with an owner: named, cancelled together, waited for.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns the tasks of one component. Cheap to clone; clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// A fresh group.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group of its own that is also cancelled when this one is.
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            token: self.token.child_token(),
        }
    }

    /// Cancelled when the group must stop; long loops select on it.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `future` until it ends by itself; it should watch [`Tasks::token`].
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            future.await;
            if !token.is_cancelled() {
                tracing::debug!(task = name, "task ended");
            }
        })
    }

    /// Runs `future` and drops it as soon as the group is cancelled.
    pub fn spawn_cancellable<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = future => {}
            }
        })
    }

    /// Asks every task to stop, without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels and waits; `false` when tasks were still running after `grace`.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}
