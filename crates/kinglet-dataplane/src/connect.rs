//! Opening connections to containers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use kinglet_process::Tasks;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::breaker::Container;
use crate::options::Options;
use crate::pool::{ExchangeLog, H1Connection, StreamGuard, UpstreamIo};
use crate::request_body::RequestBody;

/// An HTTP/2 peer that does not answer a ping for this long has gone without saying so.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes in flight per stream and per connection: enough for a local network, small enough to be many.
pub(crate) const H2_STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Runs hyper's HTTP/2 work under an owner.
#[derive(Clone)]
pub(crate) struct Spawner(pub(crate) Tasks);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("h2", async move {
            future.await;
        });
    }
}

pub(crate) async fn tcp(container: &Container, options: &Options) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(
        options.connect_timeout,
        TcpStream::connect(container.address),
    )
    .await
    {
        Ok(connected) => connected?,
        Err(_elapsed) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "connection timed out",
            ));
        }
    };
    stream.set_nodelay(true)?;
    container.mark_reachable();
    Ok(stream)
}

pub(crate) async fn h1(container: &Container, options: &Options) -> io::Result<H1Connection> {
    let stream = tcp(container, options).await?;
    let mut builder = http1::Builder::new();
    if let Some(headers_max) = options.headers_max {
        builder.max_headers(headers_max);
    }
    let log = Arc::<ExchangeLog>::default();
    let (sender, engine) = builder
        .handshake(TokioIo::new(UpstreamIo::new(stream, log.clone())))
        .await
        .map_err(io::Error::other)?;
    Ok(H1Connection {
        log,
        sender,
        engine: Some(engine),
        idle_since: Instant::now(),
    })
}

/// A stream on a shared connection; makes one if those there are full.
pub(crate) async fn h2(
    container: &Arc<Container>,
    options: &Options,
    upstreams: &Tasks,
) -> io::Result<(http2::SendRequest<RequestBody>, StreamGuard)> {
    if let Some(shared) = container.h2.share(options.h2_connection_streams_max) {
        return Ok(shared);
    }
    let _turn = container.h2.connecting.lock().await;
    if let Some(shared) = container.h2.share(options.h2_connection_streams_max) {
        return Ok(shared);
    }
    let stream = tcp(container, options).await?;
    let (sender, engine) = http2::Builder::new(Spawner(upstreams.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    upstreams.spawn_cancellable("h2 connection", async move {
        if let Err(error) = engine.await {
            tracing::debug!(%error, "connection to a container ended");
        }
    });
    container.h2.add(sender);
    container
        .h2
        .share(u32::MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionReset, "connection closed"))
}
