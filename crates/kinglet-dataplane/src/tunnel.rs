//! After an upgrade: bytes both ways, until both sides are done.
//!
//! The slot is held throughout. Half-close passes through. `idleTimeoutSeconds`, where set, counts silence in both
//! directions; the Revision's whole-request timeout ends a tunnel only if [`crate::Options::cut_streams_at_timeout`].

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::breaker::Slot;
use crate::listen::ActiveRequest;
use crate::response_body::Timeouts;

/// The client has had its 101; it must take the connection over within this.
const HANDOVER: Duration = Duration::from_secs(10);

/// Joins the two sides; returns when the tunnel is over.
pub(crate) async fn run(
    client: OnUpgrade,
    container: OnUpgrade,
    slot: Slot,
    active: ActiveRequest,
    timeouts: Timeouts,
) {
    let sides = tokio::time::timeout(HANDOVER, async { tokio::try_join!(client, container) }).await;
    let (client, container) = match sides {
        Ok(Ok(sides)) => sides,
        Ok(Err(error)) => {
            tracing::debug!(%error, "upgrade was not completed");
            return;
        }
        Err(_elapsed) => return,
    };
    let moved = AtomicU64::new(0);
    let mut client = CountingIo {
        inner: TokioIo::new(client),
        moved: &moved,
    };
    let mut container = CountingIo {
        inner: TokioIo::new(container),
        moved: &moved,
    };
    tokio::select! {
        outcome = tokio::io::copy_bidirectional(&mut client, &mut container) => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        () = expiry(&moved, timeouts) => {}
    }
    drop((slot, active));
}

/// Resolves when a clock runs out; never, if there is none.
async fn expiry(moved: &AtomicU64, timeouts: Timeouts) {
    let silence = async {
        let Some(idle) = timeouts.idle else {
            return std::future::pending().await;
        };
        loop {
            let before = moved.load(Ordering::Relaxed);
            tokio::time::sleep(idle).await;
            if moved.load(Ordering::Relaxed) == before {
                return;
            }
        }
    };
    let total = async {
        match timeouts.total {
            Some(at) => tokio::time::sleep_until(at.max(Instant::now())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = silence => {}
        () = total => {}
    }
}

/// Counts what is read, so that silence can be told.
struct CountingIo<'a> {
    inner: TokioIo<Upgraded>,
    moved: &'a AtomicU64,
}

impl AsyncRead for CountingIo<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.moved.fetch_add(count as u64, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for CountingIo<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
