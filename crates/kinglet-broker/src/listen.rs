//! A stage behind a socket: for the host, tests, and processes of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kinglet_decide::call::{BoxError, CallBody, HttpService};
use kinglet_process::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Connections at once; the next ones wait in the listener's backlog. Heads and small bodies of all take 200 MB at worst.
pub const CONNECTIONS_MAX: usize = 1024;
/// A head must be there within this time, a handshake too (Knative's servers: 10 s).
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Headers of one request: attributes of an event twice over.
const HEAD_BYTES_MAX: usize = 2 * kinglet_events::event::ATTRIBUTES_BYTES_MAX;
/// Every extension is a header, and requests have some of their own (hyper's default is 100).
const HEADERS_MAX: usize = 2 * kinglet_events::event::EXTENSIONS_MAX + 100;
/// After `accept` failed (no descriptors left): the listener lives on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `service` on a socket until `tasks` are cancelled; requests under way end by themselves.
pub fn serve(
    listener: TcpListener,
    service: Arc<dyn HttpService>,
    tls: Option<Arc<rustls::ServerConfig>>,
    tasks: &Tasks,
) {
    let connections = tasks.clone();
    let tls = tls.map(TlsAcceptor::from);
    tasks.component_cancellable("broker listener", async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("accepting a connection to the broker: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (service, tls) = (service.clone(), tls.clone());
            let token = connections.token();
            connections.spawn("broker connection", async move {
                let _place = place;
                let _ = stream.set_nodelay(true);
                match tls {
                    None => connection(stream, service, token).await,
                    Some(tls) => {
                        let secured = tokio::time::timeout(HEAD_WITHIN, tls.accept(stream)).await;
                        if let Ok(Ok(stream)) = secured {
                            connection(stream, service, token).await;
                        }
                    }
                }
            });
        }
    });
}

async fn connection<S>(
    stream: S,
    service: Arc<dyn HttpService>,
    token: tokio_util::sync::CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let service = service.clone();
        async move {
            let request = request.map(|body| {
                let body: CallBody = Box::pin(body.map_err(BoxError::from));
                body
            });
            Ok::<_, Infallible>(service.call(request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let served = builder.serve_connection(TokioIo::new(stream), answer);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        () = token.cancelled() => served.as_mut().graceful_shutdown(),
    }
    // Ended by the client, or by us after the answer.
    let _ = served.await;
}
