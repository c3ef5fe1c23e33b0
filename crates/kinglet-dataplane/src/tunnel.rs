//! After an upgrade: bytes both ways, until both sides are done.
//!
//! The slot is held throughout. Half-close passes through. `idleTimeoutSeconds`, where set, ends it so long after the last
//! byte of either side; the Revision's whole-request timeout ends a tunnel only if [`crate::Options::cut_streams_at_timeout`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::gateway::Held;
use crate::response_body::Timeouts;

/// The client has had its 101; it must take the connection over within this.
const HANDOVER: Duration = Duration::from_secs(10);

/// One of the plane's tunnels, counted until dropped.
pub(crate) struct CountedTunnel(Arc<AtomicUsize>);

impl CountedTunnel {
    pub(crate) fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::AcqRel);
        Self(all.clone())
    }
}

impl Drop for CountedTunnel {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Joins the two sides; returns when the tunnel is over.
pub(crate) async fn run(client: OnUpgrade, container: OnUpgrade, held: Held, timeouts: Timeouts) {
    let sides = tokio::time::timeout(HANDOVER, async { tokio::try_join!(client, container) }).await;
    let (client, container) = match sides {
        Ok(Ok(sides)) => sides,
        Ok(Err(error)) => {
            tracing::debug!(%error, "upgrade was not completed");
            return;
        }
        Err(_elapsed) => return,
    };
    let last_byte = LastByte::now();
    let mut client = WatchedIo {
        inner: TokioIo::new(client),
        last_byte: &last_byte,
    };
    let mut container = WatchedIo {
        inner: TokioIo::new(container),
        last_byte: &last_byte,
    };
    tokio::select! {
        outcome = tokio::io::copy_bidirectional(&mut client, &mut container) => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        () = expiry(&last_byte, timeouts) => {}
    }
    drop(held);
}

/// When the last byte of either side came.
struct LastByte {
    start: Instant,
    /// Nanoseconds from `start`.
    after: AtomicU64,
}

impl LastByte {
    fn now() -> Self {
        Self {
            start: Instant::now(),
            after: AtomicU64::new(0),
        }
    }

    fn came(&self) {
        let after = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.after.store(after, Ordering::Relaxed);
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_nanos(self.after.load(Ordering::Relaxed))
    }
}

/// Resolves when a timeout has passed; never, if there is none.
async fn expiry(last_byte: &LastByte, timeouts: Timeouts) {
    let silence = async {
        let Some(idle) = timeouts.idle else {
            return std::future::pending().await;
        };
        loop {
            let silent_since = last_byte.at();
            tokio::time::sleep_until(silent_since + idle).await;
            if last_byte.at() == silent_since {
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

/// Records when bytes are read.
struct WatchedIo<'a> {
    inner: TokioIo<Upgraded>,
    last_byte: &'a LastByte,
}

impl AsyncRead for WatchedIo<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.last_byte.came();
        }
        read
    }
}

impl AsyncWrite for WatchedIo<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_byte() {
        let idle = Duration::from_secs(10);
        let timeouts = Timeouts {
            total: None,
            idle: Some(idle),
        };
        let last_byte = LastByte::now();
        let began = Instant::now();
        let traffic = async {
            for pause in [9, 1, 8] {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                last_byte.came();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = expiry(&last_byte, timeouts) => {}
            () = traffic => {}
        }
        assert_eq!(began.elapsed(), Duration::from_secs(18) + idle);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_timeout_counts_from_the_request() {
        let total = Duration::from_secs(5);
        let began = Instant::now();
        let timeouts = Timeouts {
            total: Some(began + total),
            idle: None,
        };
        expiry(&LastByte::now(), timeouts).await;
        assert_eq!(began.elapsed(), total);
    }
}
