//! How long ago something was last said in a session.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A session in which neither side says anything ends after this time, as a kubelet's does. Pings say nothing.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// How long a client may take to hear that its session was idle for too long.
pub(super) const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// The last time that bytes passed, in either direction. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub(super) fn begin() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Bytes have passed.
    pub(super) fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until nothing has passed for [`IDLE_MAX`].
    pub(super) async fn has_ceased(&self) {
        loop {
            let last = *self.0.lock();
            tokio::time::sleep_until(last + IDLE_MAX).await;
            if *self.0.lock() == last {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_last_bytes() {
        let activity = Activity::begin();
        let begun = Instant::now();
        let talk = async {
            for _ in 0..3 {
                tokio::time::sleep(IDLE_MAX / 2).await;
                activity.note();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = talk => {}
            () = activity.has_ceased() => {}
        }
        assert_eq!(begun.elapsed().as_secs(), (IDLE_MAX * 5 / 2).as_secs());
    }
}
