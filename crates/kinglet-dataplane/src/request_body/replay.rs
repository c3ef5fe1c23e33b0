//! The beginning of a body, kept for sending it again.
//!
//! An HTTP/2 server that says goodbye refuses the requests that crossed it on the way; gRPC requests all have bodies, so
//! without this each such goodbye would fail some. Nothing is copied: chunks are shared, and let go as soon as there are
//! too many of them.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use kinglet_decide::call::BoxError;
use parking_lot::Mutex;

use super::BodySource;

/// What may be kept per request: most gRPC messages, while a thousand requests at once stay within 64 MB.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// A body that can be read again from the beginning, as long as that has been kept.
pub(crate) struct Replay(Mutex<Kept>);

struct Kept {
    incoming: BodySource,
    chunks: Vec<Bytes>,
    bytes: usize,
    /// Something has gone that was not kept.
    gone: bool,
    /// The reader in force; earlier ones are at their end.
    reader: u32,
}

/// Reads a [`Replay`] from its beginning.
pub(super) struct Reader {
    replay: Arc<Replay>,
    number: u32,
    next: usize,
}

impl Replay {
    /// Whether a piece of a body that was read before may be kept.
    pub(super) fn keeps(ahead: &Frame<Bytes>) -> bool {
        ahead
            .data_ref()
            .is_some_and(|chunk| chunk.len() <= KEPT_BYTES_MAX)
    }

    /// Of a body whose first piece may have been read.
    pub(super) fn new(incoming: BodySource, ahead: Option<Frame<Bytes>>) -> Arc<Self> {
        let chunks: Vec<Bytes> = ahead
            .and_then(|frame| frame.into_data().ok())
            .into_iter()
            .collect();
        Arc::new(Self(Mutex::new(Kept {
            incoming,
            bytes: chunks.iter().map(Bytes::len).sum(),
            chunks,
            gone: false,
            reader: 0,
        })))
    }

    /// Takes over from the last reader; `None` when the beginning is gone.
    pub(super) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut kept = self.0.lock();
        if kept.gone {
            return None;
        }
        kept.reader += 1;
        Some(Reader {
            replay: self.clone(),
            number: kept.reader,
            next: 0,
        })
    }
}

impl Reader {
    pub(super) fn replay(&self) -> Arc<Replay> {
        self.replay.clone()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kept = self.replay.0.lock();
        if kept.reader != self.number {
            return Poll::Ready(None);
        }
        if let Some(chunk) = kept.chunks.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        let frame = std::task::ready!(kept.incoming.poll_frame(cx));
        match frame.as_ref().and_then(|frame| frame.as_ref().ok()) {
            None => {}
            Some(frame) => match frame.data_ref() {
                Some(chunk) if !kept.gone && kept.bytes + chunk.len() <= KEPT_BYTES_MAX => {
                    kept.bytes += chunk.len();
                    kept.chunks.push(chunk.clone());
                    self.next += 1;
                }
                _ => {
                    kept.gone = true;
                    kept.chunks = Vec::new();
                    self.next = 0;
                }
            },
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = self.replay.0.lock();
        kept.reader != self.number
            || (self.next >= kept.chunks.len() && kept.incoming.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let kept = self.replay.0.lock();
        let ahead: u64 = kept
            .chunks
            .iter()
            .skip(self.next)
            .map(|chunk| chunk.len() as u64)
            .sum();
        super::plus(kept.incoming.size_hint(), ahead)
    }
}
