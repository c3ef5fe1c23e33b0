//! The guards that requests hold: a seat, a place in the queue, and a seat on its way to somebody.
//!
//! Each gives back what it stands for when dropped, and exactly once: a grant that nobody picked up counts as a seat, a
//! ticket that was granted and then dropped likewise.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{Container, Entered, Facts, Lobby};

/// A seat: one slot on one container, held until dropped.
pub(crate) struct Visit {
    lobby: Arc<Lobby>,
    pub(crate) facts: Arc<Facts>,
    container: Arc<Container>,
    /// Whether dropping gives the seat back; not after it was exchanged.
    metered: bool,
}

impl Visit {
    pub(super) fn new(lobby: Arc<Lobby>, facts: Arc<Facts>, container: Arc<Container>) -> Self {
        Self {
            lobby,
            facts,
            container,
            metered: true,
        }
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    pub(crate) fn lobby(&self) -> &Arc<Lobby> {
        &self.lobby
    }

    /// Another seat, since this one's container could not be reached. The request stays counted throughout, by
    /// what is returned; this visit is spent and must be replaced.
    pub(crate) fn exchange(&mut self) -> Entered {
        self.metered = false;
        self.lobby.enter_again(&self.container)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.metered {
            self.lobby.leave(Some(&self.container));
        }
    }
}

/// A slot on its way to a waiting request.
pub(crate) struct Grant {
    lobby: Arc<Lobby>,
    facts: Arc<Facts>,
    container: Option<Arc<Container>>,
}

impl Grant {
    pub(super) fn new(lobby: Arc<Lobby>, facts: Arc<Facts>, container: Arc<Container>) -> Self {
        Self {
            lobby,
            facts,
            container: Some(container),
        }
    }

    /// Takes the slot out, so that dropping the grant does nothing.
    pub(super) fn disarm(&mut self) -> Option<Arc<Container>> {
        self.container.take()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            self.lobby.give_back(&container);
        }
    }
}

/// A place in the queue; resolves to a seat, or to `None` when the lobby has dissolved and the request must look again.
pub(crate) struct Ticket {
    lobby: Arc<Lobby>,
    /// What was known on arrival.
    pub(crate) facts: Option<Arc<Facts>>,
    /// No container was open on arrival.
    pub(crate) cold: bool,
    receiver: Option<oneshot::Receiver<Grant>>,
}

impl Ticket {
    pub(super) fn new(
        lobby: Arc<Lobby>,
        facts: Option<Arc<Facts>>,
        cold: bool,
        receiver: oneshot::Receiver<Grant>,
    ) -> Self {
        Self {
            lobby,
            facts,
            cold,
            receiver: Some(receiver),
        }
    }
}

impl Future for Ticket {
    type Output = Option<Visit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = self.receiver.as_mut() else {
            return Poll::Ready(None);
        };
        match Pin::new(receiver).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(mut grant)) => {
                self.receiver = None;
                let container = grant.disarm().expect("a grant is sent armed");
                Poll::Ready(Some(Visit::new(
                    grant.lobby.clone(),
                    grant.facts.clone(),
                    container,
                )))
            }
            Poll::Ready(Err(_dissolved)) => {
                self.receiver = None;
                self.lobby.leave(None);
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else {
            return;
        };
        let granted = {
            let mut inner = self.lobby.inner.lock();
            match receiver.try_recv() {
                Ok(grant) => Some(grant),
                Err(oneshot::error::TryRecvError::Empty) => {
                    inner.waiting = inner.waiting.saturating_sub(1);
                    // Under the lock, so that nobody grants in between.
                    receiver.close();
                    None
                }
                Err(oneshot::error::TryRecvError::Closed) => None,
            }
        };
        self.lobby.leave(None);
        drop(granted);
    }
}
