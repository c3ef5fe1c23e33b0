//! Things made ahead of need: parked containers and pod networks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use kinglet_process::Tasks;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

/// Made at once beyond the pool when a burst has emptied it: two per core would only make all of them late.
const MADE_AT_ONCE_MAX: usize = 6;
/// The machine is left to whoever took the last one for this long.
const REFILL_DELAY: Duration = Duration::from_millis(25);
/// After a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

type Make<T, E> = Arc<dyn Fn() -> BoxFuture<'static, Result<T, E>> + Send + Sync>;

/// A few `T`, always ready; more are made while somebody waits.
pub(crate) struct Pool<T, E> {
    ready: Mutex<mpsc::Receiver<T>>,
    make: Make<T, E>,
    slots: Semaphore,
}

impl<T: Send + 'static, E: std::fmt::Display + Send + 'static> Pool<T, E> {
    /// Keeps `size` ready until `tasks` are cancelled.
    pub(crate) fn start<F>(
        tasks: &Tasks,
        name: &'static str,
        size: usize,
        make: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let make: Make<T, E> = Arc::new(move || Box::pin(make()));
        let (sender, ready) = mpsc::channel(size.max(1));
        let filler = Arc::clone(&make);
        tasks.component_cancellable(name, async move {
            let mut filling = false;
            loop {
                if filling && sender.capacity() == 0 {
                    filling = false;
                }
                let Ok(permit) = sender.reserve().await else {
                    return;
                };
                if !filling {
                    filling = true;
                    tokio::time::sleep(REFILL_DELAY).await;
                }
                match filler().await {
                    Ok(made) => permit.send(made),
                    Err(error) => {
                        drop(permit);
                        tracing::warn!(pool = name, %error, "cannot make one ahead of need");
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        });
        Self {
            ready: Mutex::new(ready),
            make,
            slots: Semaphore::new(MADE_AT_ONCE_MAX),
        }
    }

    /// A ready one, or one made now.
    pub(crate) async fn take(&self) -> Result<T, E> {
        if let Ok(ready) = self.ready.lock().try_recv() {
            return Ok(ready);
        }
        let _slot = self.slots.acquire().await;
        if let Ok(ready) = self.ready.lock().try_recv() {
            return Ok(ready);
        }
        (self.make)().await
    }

    /// Lets everything that waits go.
    pub(crate) fn drain(&self) {
        let mut ready = self.ready.lock();
        ready.close();
        while ready.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn takes_what_is_ready_and_makes_more() {
        let tasks = Tasks::new();
        let made = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&made);
        let pool = Pool::start(&tasks, "numbers", 2, move || {
            let count = Arc::clone(&count);
            async move { Ok::<u32, String>(count.fetch_add(1, Ordering::SeqCst)) }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(made.load(Ordering::SeqCst), 2, "filled ahead of need");
        for expected in 0..5 {
            assert_eq!(pool.take().await, Ok(expected));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(made.load(Ordering::SeqCst), 7, "filled again");
        assert!(tasks.shutdown(Duration::from_secs(1)).await);
        pool.drain();
    }
}
