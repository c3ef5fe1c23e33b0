//! The guards that requests hold: a slot, a place in the queue, and a slot on its way to a waiter.
//!
//! Each returns what it stands for when dropped, exactly once: a pending slot that nobody picked up is a slot, and so is the
//! one of a waiter that was dropped after it was granted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{Admission, Breaker, ClusterConfig, Container};

/// The right to one request on one container, held until dropped.
pub(crate) struct Slot {
    breaker: Arc<Breaker>,
    pub(crate) config: Arc<ClusterConfig>,
    container: Arc<Container>,
    /// Whether dropping releases the slot; not after `readmit`.
    metered: bool,
    /// An activator counts the request, too.
    proxied: bool,
}

impl Slot {
    pub(super) fn new(
        breaker: Arc<Breaker>,
        config: Arc<ClusterConfig>,
        container: Arc<Container>,
        proxied: bool,
    ) -> Self {
        Self {
            breaker,
            config,
            container,
            metered: true,
            proxied,
        }
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    pub(crate) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Asks for another slot, since this one's container could not be reached. The request stays counted, by
    /// what is returned; this slot is spent and must be replaced.
    pub(crate) fn readmit(&mut self) -> Admission {
        self.metered = false;
        self.breaker.readmit(&self.container, self.proxied)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.metered {
            self.breaker.release(Some(&self.container), self.proxied);
        }
    }
}

/// A slot on its way to a waiting request.
pub(crate) struct PendingSlot {
    breaker: Arc<Breaker>,
    config: Arc<ClusterConfig>,
    container: Option<Arc<Container>>,
}

impl PendingSlot {
    pub(super) fn new(
        breaker: Arc<Breaker>,
        config: Arc<ClusterConfig>,
        container: Arc<Container>,
    ) -> Self {
        Self {
            breaker,
            config,
            container: Some(container),
        }
    }

    /// Takes the slot out, so that dropping the guard does nothing.
    pub(super) fn disarm(&mut self) -> Option<Arc<Container>> {
        self.container.take()
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            self.breaker.return_slot(&container);
        }
    }
}

/// A place in the queue; resolves to a slot, or to `None` when the backend was removed and the request must look it up again.
pub(crate) struct Waiter {
    breaker: Arc<Breaker>,
    /// What was known on arrival.
    pub(crate) config: Option<Arc<ClusterConfig>>,
    /// No container was open on arrival.
    pub(crate) cold: bool,
    /// An activator counts the request, too.
    proxied: bool,
    receiver: Option<oneshot::Receiver<PendingSlot>>,
}

impl Waiter {
    pub(super) fn new(
        breaker: Arc<Breaker>,
        config: Option<Arc<ClusterConfig>>,
        cold: bool,
        proxied: bool,
        receiver: oneshot::Receiver<PendingSlot>,
    ) -> Self {
        Self {
            breaker,
            config,
            cold,
            proxied,
            receiver: Some(receiver),
        }
    }
}

impl Future for Waiter {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = self.receiver.as_mut() else {
            return Poll::Ready(None);
        };
        match Pin::new(receiver).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(mut pending)) => {
                self.receiver = None;
                let container = pending
                    .disarm()
                    .expect("a pending slot is sent with its container");
                Poll::Ready(Some(Slot::new(
                    pending.breaker.clone(),
                    pending.config.clone(),
                    container,
                    self.proxied,
                )))
            }
            Poll::Ready(Err(_removed)) => {
                self.receiver = None;
                self.breaker.release(None, self.proxied);
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else {
            return;
        };
        let granted = {
            let mut inner = self.breaker.inner.lock();
            match receiver.try_recv() {
                Ok(pending) => Some(pending),
                Err(oneshot::error::TryRecvError::Empty) => {
                    inner.waiting = inner.waiting.saturating_sub(1);
                    // Under the lock, so that nobody grants in between.
                    receiver.close();
                    None
                }
                Err(oneshot::error::TryRecvError::Closed) => None,
            }
        };
        self.breaker.release(None, self.proxied);
        drop(granted);
    }
}
