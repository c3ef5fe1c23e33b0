//! The two ends of a client's connection that need patience (docs/decisions/0016-half-closed-clients.md).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client that has shut its side down after a whole request (`printf … | nc`) is served on.
///
/// TCP does not tell such a client from one that has gone, and a request whose client has gone must free its slot. The
/// time begins anew with each write: a client that has gone answers that with a reset, which is noticed at once.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(1);

/// How long the rest of a request is read and dropped after the response was sent. A socket that is closed with unread
/// bytes resets the connection, and the client may lose the response with it (Go waits as long, `rstAvoidanceDelay`).
const LINGER_MAX: Duration = Duration::from_millis(500);

/// Bytes dropped at once.
const DROPPED_BYTES: usize = 8 * 1024;

/// The client's end of file, held back.
#[derive(Default)]
pub(super) struct PatientEnd {
    seen: Option<Pin<Box<Sleep>>>,
}

impl PatientEnd {
    /// Called when an end of file was read; ready when it is to be passed on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wait = self
            .seen
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED_MAX)));
        wait.as_mut().poll(cx).map(Ok)
    }

    /// Called at each write.
    pub(super) fn put_off(&mut self) {
        if let Some(wait) = &mut self.seen {
            wait.as_mut().reset(Instant::now() + HALF_CLOSED_MAX);
        }
    }
}

/// Reads and drops what still comes from a client whose response is complete.
#[derive(Default)]
pub(super) struct Linger {
    until: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// Ready when the client has closed its side, or had time enough.
    pub(super) fn poll<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<()> {
        let until = self
            .until
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        let mut dropped = [0; DROPPED_BYTES];
        loop {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut part = ReadBuf::new(&mut dropped);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut part));
            if read.is_err() || part.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}
