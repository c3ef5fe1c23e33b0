//! A request's body on its way to the container.
//!
//! Remembers whether it has been read to its end (only then can its connection carry another request), and holds back
//! the body of a client that asked first (`Expect: 100-continue`) until the container says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// A server may ignore `Expect`; then the body goes after this long all the same (Go's transport waits as long).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// What is known about a body while its connection has it.
#[derive(Default)]
pub(crate) struct Progress {
    done: AtomicBool,
    invited: AtomicBool,
    waker: AtomicWaker,
}

impl Progress {
    /// Read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The container said 100.
    pub(crate) fn invite(&self) {
        self.invited.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A request's body.
pub(crate) struct Upload {
    incoming: Option<Incoming>,
    progress: Option<Arc<Progress>>,
    held: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(crate) fn empty() -> Self {
        Self { incoming: None, progress: None, held: None }
    }

    pub(crate) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { incoming: Some(incoming), progress: Some(Arc::default()), held: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// Waits for [`Progress::invite`] before the first byte.
    pub(crate) fn hold(&mut self) {
        self.held = Some(Box::pin(tokio::time::sleep(EXPECT_PATIENCE)));
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(incoming) = this.incoming.as_mut() else { return Poll::Ready(None) };
        let progress = this.progress.as_ref().expect("a body that comes in has its progress");
        if let Some(patience) = this.held.as_mut() {
            progress.waker.register(cx.waker());
            if !progress.invited.load(Ordering::Acquire) && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.held = None;
        }
        let frame = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if frame.is_none() || incoming.is_end_stream() {
            progress.done.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
