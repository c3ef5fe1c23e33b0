//! A request's body on its way to the container.
//!
//! Remembers whether it has been read to its end (only then can its connection carry another request); holds back the
//! body of a client that asked first (`Expect: 100-continue`) until the container says so; and, where a container may
//! refuse a request after its body has begun (HTTP/2), keeps the beginning for sending it again.

mod replay;
mod source;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use kinglet_decide::call::BoxError;
use tokio::time::Sleep;

pub(crate) use replay::Replay;
pub(crate) use source::Source as BodySource;

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
pub(crate) struct RequestBody {
    source: Content,
    progress: Option<Arc<Progress>>,
    held: Option<Pin<Box<Sleep>>>,
}

enum Content {
    Empty,
    Stream {
        incoming: BodySource,
        /// What was read while the request waited for a slot.
        ahead: Option<Frame<Bytes>>,
    },
    Kept(replay::Reader),
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self {
            source: Content::Empty,
            progress: None,
            held: None,
        }
    }

    pub(crate) fn new(incoming: BodySource) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self {
            source: Content::Stream {
                incoming,
                ahead: None,
            },
            progress: Some(Arc::default()),
            held: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, Content::Empty)
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// Reads the first piece, and never resolves. While nobody reads a body, a client that hangs up is not noticed; with
    /// its first piece a small one is complete, and its request can leave the queue with its client.
    pub(crate) async fn read_ahead(&mut self) {
        if let Content::Stream { incoming, ahead } = &mut self.source
            && ahead.is_none()
        {
            let frame = poll_fn(|cx| incoming.poll_frame(cx)).await;
            if let Some(Ok(frame)) = frame {
                *ahead = Some(frame);
            }
        }
        std::future::pending().await
    }

    /// Waits for [`Progress::invite`] before the first byte.
    pub(crate) fn hold(&mut self) {
        self.held = Some(Box::pin(tokio::time::sleep(EXPECT_PATIENCE)));
    }

    /// Keeps the beginning from now on; what comes back makes the body anew. `None` for an empty one, and for one whose
    /// beginning is too large to be kept.
    pub(crate) fn keep(&mut self) -> Option<Arc<Replay>> {
        match std::mem::replace(&mut self.source, Content::Empty) {
            Content::Empty => None,
            Content::Stream { incoming, ahead } if ahead.as_ref().is_none_or(Replay::keeps) => {
                let replay = Replay::new(incoming, ahead);
                self.source = Content::Kept(replay.reader()?);
                Some(replay)
            }
            too_much @ Content::Stream { .. } => {
                self.source = too_much;
                None
            }
            Content::Kept(reader) => {
                let replay = reader.replay();
                self.source = Content::Kept(reader);
                Some(replay)
            }
        }
    }

    /// The body from its beginning; `None` when too much of it has gone. The body it was made of ends.
    pub(crate) fn again(replay: &Arc<Replay>) -> Option<Self> {
        Some(Self {
            source: Content::Kept(replay.reader()?),
            progress: Some(Arc::default()),
            held: None,
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.is_empty() {
            return Poll::Ready(None);
        }
        let progress = this
            .progress
            .as_ref()
            .expect("a body that comes in has its progress");
        if let Some(patience) = this.held.as_mut() {
            progress.waker.register(cx.waker());
            if !progress.invited.load(Ordering::Acquire) && patience.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            this.held = None;
        }
        let (frame, ended) = match &mut this.source {
            Content::Empty => (None, true),
            Content::Stream { incoming, ahead } => {
                let frame = match ahead.take() {
                    Some(frame) => Some(Ok(frame)),
                    None => std::task::ready!(incoming.poll_frame(cx)),
                };
                (frame, incoming.is_end_stream())
            }
            Content::Kept(reader) => {
                let frame = std::task::ready!(reader.poll_frame(cx));
                (frame, reader.is_end_stream())
            }
        };
        if frame.is_none() || ended {
            progress.done.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Content::Empty => true,
            Content::Stream { incoming, ahead } => ahead.is_none() && incoming.is_end_stream(),
            Content::Kept(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Content::Empty => SizeHint::with_exact(0),
            Content::Stream { incoming, ahead } => {
                let ahead = ahead
                    .as_ref()
                    .and_then(Frame::data_ref)
                    .map_or(0, Bytes::len);
                plus(incoming.size_hint(), ahead as u64)
            }
            Content::Kept(reader) => reader.size_hint(),
        }
    }
}

/// `rest`, and so many bytes before it.
fn plus(rest: SizeHint, ahead: u64) -> SizeHint {
    rest.exact()
        .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + ahead))
}
