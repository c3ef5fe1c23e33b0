//! The life of one client connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Peer;
use super::client_io::{ClientIo, HeadLog};
use super::handshake;
use super::registry::{CloseMode, ConnectionActivity};
use crate::connect::{H2_CONNECTION_WINDOW, H2_STREAM_WINDOW, Spawner};
use crate::gateway;
use crate::plane::Plane;
use crate::request_body::BodySource;

/// Ping an HTTP/2 client that is silent while it has requests open, and give up on it.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn serve(
    plane: Arc<Plane>,
    stream: TcpStream,
    peer: Arc<Peer>,
    tls: Option<TlsAcceptor>,
) {
    if stream.set_nodelay(true).is_err() {
        return; // gone already
    }
    let heads = Arc::<HeadLog>::default();
    let activity = peer.activity.clone();
    match tls {
        None => {
            let mut io = ClientIo::new(stream, heads.clone(), activity.clone());
            let h2 = tokio::select! {
                () = activity.closing() => return,
                h2 = io.begins_with_preface() => h2,
            };
            if let Ok(h2) = h2 {
                serve_http(plane, io, heads, peer, h2).await;
            }
        }
        Some(tls) => {
            let secured = tokio::select! {
                () = activity.closing() => return,
                secured = handshake::secure(&plane, stream, &peer, &tls) => secured,
            };
            if let Some(stream) = secured {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let io = ClientIo::new(stream, heads.clone(), activity.clone());
                // Room for TLS is taken where there is TLS.
                Box::pin(serve_http(plane, io, heads, peer, h2)).await;
            }
        }
    }
}

async fn serve_http<S>(
    plane: Arc<Plane>,
    mut io: ClientIo<S>,
    heads: Arc<HeadLog>,
    peer: Arc<Peer>,
    h2: bool,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = peer.activity.clone();
    let service = service_fn({
        let plane = plane.clone();
        move |request| {
            let (plane, peer) = (plane.clone(), peer.clone());
            let raw_target = heads.begin(&request);
            // Counted from here on, not from the future's first poll: hyper reads on in between.
            let active = peer.active_request();
            async move {
                Ok::<_, Infallible>(
                    gateway::serve(
                        &plane,
                        &peer,
                        request.map(BodySource::Client),
                        raw_target,
                        active,
                    )
                    .await,
                )
            }
        }
    });
    let options = plane.options();
    if h2 {
        io.set_opaque();
        let io = TokioIo::new(io);
        let connection = http2::Builder::new(Spawner(plane.connections.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(options.h2_streams_max)
            .max_pending_accept_reset_streams(options.h2_resets_max)
            .max_header_list_size(u32::try_from(options.header_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_TIMEOUT)
            .serve_connection(io, service);
        // Rare, and larger than all that an HTTP/1 connection needs.
        watch(&activity, Box::pin(connection).as_mut()).await;
    } else {
        let io = TokioIo::new(io);
        let mut builder = http1::Builder::new();
        builder.max_header_size(options.header_bytes_max);
        if let Some(headers_max) = options.headers_max {
            builder.max_headers(headers_max);
        }
        let connection = builder.serve_connection(io, service).with_upgrades();
        watch(&activity, pin!(connection)).await;
    }
}

/// A connection that can be asked to end with its last answer.
trait ServedConnection: Future<Output = hyper::Result<()>> {
    fn close_gracefully(self: Pin<&mut Self>);
}

impl<I, S> ServedConnection for http1::UpgradeableConnection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::response::ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> ServedConnection for http2::Connection<I, S, Spawner>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::response::ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection to its end; the registry may ask it to close earlier.
async fn watch<C: ServedConnection>(activity: &ConnectionActivity, mut connection: Pin<&mut C>) {
    let mut closing = false;
    poll_fn(|cx| {
        // The waker is registered before the mode is read: a request to close made in between is seen now, a later one wakes us.
        activity.waker.register(cx.waker());
        match activity.close_mode() {
            CloseMode::Open => {}
            CloseMode::Graceful if closing => {}
            CloseMode::Graceful => {
                closing = true;
                connection.as_mut().close_gracefully();
            }
            CloseMode::Now => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|outcome| {
            if let Err(error) = outcome {
                tracing::trace!(%error, "client connection ended");
            }
        })
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one idle connection costs, besides the buffers of hyper.
    #[test]
    fn a_connection_is_small() {
        fn bytes<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = bytes(serve);
        assert!(size <= 4096, "{size} bytes");
    }
}
