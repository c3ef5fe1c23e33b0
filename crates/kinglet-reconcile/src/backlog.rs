//! The backlog of a process: what is looked at because a process has started or because ten hours are over, not because
//! something happened.
//!
//! After a restart with thousands of objects every controller has thousands of keys to look at, and one of them may be
//! asked for by a waiting request. What happened is worked on at once; the backlog gets at most half of the processors,
//! all controllers together, so that who is asked for does not share them with thousands of others.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long one key has its turn. What takes longer waits for somebody else (an API server, a registry) rather than for a
/// processor; a look at one object takes a millisecond or less.
const TURN_MAX: Duration = Duration::from_millis(20);

/// Turns of a process. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Semaphore>);

/// One piece of the backlog may be worked on while this lives.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl Default for Backlog {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(processors / 2)
    }
}

impl Backlog {
    /// One with that many turns at a time, at least one.
    pub(crate) fn of(turns: usize) -> Self {
        Self(Arc::new(Semaphore::new(turns.max(1))))
    }

    /// Waits for a turn; first come, first served.
    pub async fn turn(&self) -> Turn {
        match Arc::clone(&self.0).acquire_owned().await {
            Ok(permit) => Turn(permit),
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }

    /// A turn, if there is one now.
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Turn)
    }
}

impl Turn {
    /// Carries `work` out, and gives the turn back when that takes long.
    pub(crate) async fn spend<T>(self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(TURN_MAX) => drop(self),
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_for_somebody_else_gives_its_turn_back() {
        let backlog = Backlog::of(1);
        let (told, heard) = tokio::sync::oneshot::channel::<()>();
        let first = backlog.turn().await;
        assert!(backlog.try_turn().is_none());
        let first = first.spend(async { heard.await.is_ok() });
        let second = async {
            let _turn = backlog.turn().await;
            told.send(()).is_ok()
        };
        assert_eq!(tokio::join!(first, second), (true, true));
    }
}
