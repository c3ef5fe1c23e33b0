//! The byte stream of one HTTP exchange, made forgiving where real servers are careless.
//!
//! A server may answer before it has read the request, and close at once. Then the request cannot be written any more, but
//! the answer is there: so a failed write is no failure of the exchange, and nothing is read before the request is written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
pub(crate) struct AnswerCounts<S> {
    stream: S,
    written: bool,
    broken: bool,
    reader: Option<Waker>,
}

impl<S> AnswerCounts<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            written: false,
            broken: false,
            reader: None,
        }
    }

    fn has_written(&mut self) {
        self.written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswerCounts<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.written {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            // TLS without a goodbye, or a server that closed before it had read the request: an end like any other. Whether
            // the message was complete is for HTTP to say.
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnswerCounts<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count)) => {
                self.has_written();
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => {
                self.broken = true;
                self.has_written();
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.broken
            && let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(context)
        {
            self.broken = result.is_err();
            return Poll::Ready(Ok(()));
        }
        if self.broken {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
