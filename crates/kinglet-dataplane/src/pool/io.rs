//! The socket under an HTTP/1 connection to a container, which notes what one exchange did on it.
//!
//! hyper takes a request apart when it sends it, and its URI type cannot carry every byte that clients put into a
//! request target. Both matter only now and then, so the socket keeps what is needed for them: the bytes of the head
//! that was sent, for sending it again after a break, and the target as the client spelled it.
//! Costs on the ordinary path: two relaxed loads for each write, one store for each read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is known about the exchange under way. Shared by the socket and the attempt that uses it.
#[derive(Default)]
pub(crate) struct ExchangeLog {
    response_began: AtomicBool,
    recording: AtomicBool,
    has_target: AtomicBool,
    /// The head as hyper wrote it. Kept for the next exchange's use of the same memory.
    head: Mutex<Vec<u8>>,
    target: Mutex<Option<RawTarget>>,
}

/// A request target that `http::Uri` cannot hold.
#[derive(Clone, Debug)]
pub(crate) struct RawTarget {
    /// As the client sent it.
    pub(crate) raw: Bytes,
    /// As hyper sends it: the bytes that are refused in a URI are percent-encoded.
    pub(crate) encoded: Bytes,
}

impl RawTarget {
    /// Whether hyper read it as `uri`; a request is never sent on with another target than it was routed by.
    pub(crate) fn is_of(&self, uri: &http::Uri) -> bool {
        uri.authority().is_none()
            && uri
                .path_and_query()
                .is_some_and(|target| target.as_str().as_bytes() == &self.encoded[..])
    }
}

impl ExchangeLog {
    /// Begins a new exchange. `record` keeps the head for [`ExchangeLog::head_for_replay`].
    pub(crate) fn begin(&self, record: bool, target: Option<RawTarget>) {
        self.response_began.store(false, Ordering::Relaxed);
        if record {
            self.head.lock().clear();
        }
        self.recording.store(record, Ordering::Relaxed);
        self.has_target.store(target.is_some(), Ordering::Relaxed);
        if target.is_some() {
            *self.target.lock() = target;
        }
    }

    /// The head that was sent, when it was recorded and not a byte of a response has come.
    pub(crate) fn head_for_replay(&self) -> Option<Vec<u8>> {
        let recorded =
            self.recording.load(Ordering::Relaxed) && !self.response_began.load(Ordering::Relaxed);
        recorded.then(|| std::mem::take(&mut *self.head.lock()))
    }

    fn wrote(&self, bytes: &[u8]) {
        if self.recording.load(Ordering::Relaxed) {
            self.head.lock().extend_from_slice(bytes);
        }
    }

    /// What hyper has written of a head, with the client's target instead of the encoded one. All of it, so that it leaves in
    /// one piece: there are servers that look for a request line in what one read brings.
    fn restore(&self, head: &[u8]) -> Option<Vec<u8>> {
        if !self.has_target.swap(false, Ordering::Relaxed) {
            return None;
        }
        let RawTarget { raw, encoded } = self.target.lock().take()?;
        let start = head.iter().position(|byte| *byte == b' ')? + 1;
        let rest = head[start..].strip_prefix(&encoded[..])?;
        if rest.first() != Some(&b' ') {
            return None;
        }
        Some([&head[..start], &raw, rest].concat())
    }
}

/// Whether a write failed because the other side is closed.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

/// The socket.
pub(crate) struct UpstreamIo {
    stream: TcpStream,
    log: Arc<ExchangeLog>,
    /// Written by hyper, not yet by the socket: a head with a restored target.
    unwritten: Vec<u8>,
    /// The container takes no more bytes. What it said before is still to be read, and hyper reads no more once a write has
    /// failed: so the rest of the request is dropped, and reading tells how the exchange ends.
    closed: bool,
}

impl UpstreamIo {
    pub(crate) fn new(stream: TcpStream, log: Arc<ExchangeLog>) -> Self {
        Self {
            stream,
            log,
            unwritten: Vec::new(),
            closed: false,
        }
    }

    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let bytes = self.unwritten.len();
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.unwritten);
            let written = ready!(self.wrote(written, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// What hyper is told of a write of so many bytes.
    fn wrote(&mut self, written: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.closed = true;
                Poll::Ready(Ok(bytes))
            }
            written => written,
        }
    }

    /// Takes the head of a request whose target must be restored; `None` for everything else.
    fn take_restored(&mut self, bytes: &[u8]) -> Option<usize> {
        if !self.log.has_target.load(Ordering::Relaxed) || bytes.is_empty() {
            return None;
        }
        self.unwritten = self.log.restore(bytes)?;
        self.log.wrote(bytes);
        Some(bytes.len())
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.log.response_began.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(cx))?;
        if self.closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        if let Some(taken) = self.take_restored(bytes) {
            return Poll::Ready(Ok(taken));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let written = ready!(self.wrote(written, bytes.len()))?;
        self.log.wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(cx))?;
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if self.closed {
            return Poll::Ready(Ok(bytes));
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        if let Some(taken) = first.and_then(|first| self.take_restored(first)) {
            return Poll::Ready(Ok(taken));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        let written = ready!(self.wrote(written, bytes))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            self.log.wrote(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(cx))?;
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
