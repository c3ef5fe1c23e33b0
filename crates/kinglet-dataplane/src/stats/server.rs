//! The autoscaler's end of the statistics sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use kinglet_decide::feed::{Report, Source};
use kinglet_decide::wire::decode_stats;
use kinglet_process::Tasks;
use kinglet_process::accept::Acceptor;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::MESSAGE_BYTES_MAX;

/// Connections at once; more wait in the kernel's backlog. Twenty activators, the other autoscalers and a kubelet.
const CONNECTIONS_MAX: usize = 256;
/// A request's head must be there by then: what Knative's client gives the whole handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Room for a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A client pings every 3.33 s and gives us 10 s to answer; three times that without a sound, and it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A client that takes no pong or goodbye is left.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a goodbye may take when the autoscaler stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Names of buckets of revisions begin so, and so does the Host of who wants the owner of one.
const BUCKET_PREFIX: &str = "autoscaler-bucket";

/// Takes statistics until `tasks` is cancelled; then every client is told to connect to somebody else (code 1012).
///
/// A report's [`Source::reporter`] is the address of its connection; when that ends, [`Report::Gone`] follows.
/// `owns_bucket` tells whether this replica owns the bucket of a name, for clients that ask for its owner.
pub async fn serve(
    listener: TcpListener,
    reports: mpsc::Sender<Report>,
    owns_bucket: impl Fn(&str) -> bool + Send + Sync + 'static,
    tasks: Tasks,
) {
    let stop = tasks.token();
    let server = Arc::new(Server {
        reports,
        owns_bucket: Box::new(owns_bucket),
        stop: stop.clone(),
    });
    let acceptor = Acceptor::new(listener, "statistics", CONNECTIONS_MAX);
    loop {
        let ((stream, peer), permit) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = acceptor.next() => accepted,
        };
        let server = Arc::clone(&server);
        tasks.spawn("statistics connection", async move {
            server.connection(stream, peer).await;
            drop(permit);
        });
    }
}

struct Server {
    reports: mpsc::Sender<Report>,
    owns_bucket: Box<dyn Fn(&str) -> bool + Send + Sync>,
    stop: CancellationToken,
}

/// Why a client is told goodbye.
struct Goodbye(CloseCode, &'static str);

impl Server {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let upgrade: Mutex<Option<OnUpgrade>> = Mutex::default();
        let service = service_fn(async |mut request: Request<Incoming>| {
            let answer = self.answer(&request);
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                *upgrade.lock() = Some(hyper::upgrade::on(&mut request));
            }
            Ok::<_, std::convert::Infallible>(answer)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::select! {
            () = self.stop.cancelled() => return,
            _ = connection => {}
        }
        let Some(upgrade) = upgrade.into_inner() else {
            return;
        };
        if let Ok(upgraded) = upgrade.await {
            self.upgraded(upgraded, peer).await;
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let headers = request.headers();
        if text(headers, header::USER_AGENT).starts_with("kube-probe/") {
            return Response::new(Full::default());
        }
        let bucket = text(headers, header::HOST);
        let bucket = bucket.split(['.', ':']).next().unwrap_or_default();
        if bucket.starts_with(BUCKET_PREFIX) && !(self.owns_bucket)(bucket) {
            let words = format!("another replica owns {bucket}, its Lease names it\n");
            return refusal(StatusCode::SERVICE_UNAVAILABLE, words);
        }
        // Only browsers send it, and no page has any business here.
        if headers.contains_key(header::ORIGIN) {
            let words = "statistics are not taken from web pages\n";
            return refusal(StatusCode::FORBIDDEN, words.to_owned());
        }
        match accept_key(request) {
            Some(accept) => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = answer.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                answer
            }
            None => {
                let words = "here activators send statistics over a WebSocket (version 13)\n";
                refusal(StatusCode::BAD_REQUEST, words.to_owned())
            }
        }
    }

    async fn upgraded(&self, upgraded: Upgraded, peer: SocketAddr) {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let mut socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config))
                .await;
        let reporter: Arc<str> = peer.to_string().into();
        let goodbye = tokio::select! {
            () = self.stop.cancelled() => Some(Goodbye(CloseCode::Restart, "the autoscaler stops")),
            goodbye = self.listen(&mut socket, &reporter) => goodbye,
        };
        if let Some(Goodbye(code, reason)) = goodbye {
            let frame = CloseFrame {
                code,
                reason: Utf8Bytes::from_static(reason),
            };
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, async {
                socket.close(Some(frame)).await?;
                // Closing over unread bytes would reset the connection, and the goodbye would be lost.
                while let Some(Ok(_)) = socket.next().await {}
                Ok::<_, Error>(())
            })
            .await;
        }
        let gone = self.reports.send(Report::Gone { reporter });
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, gone).await;
    }

    /// Hands on what a client says. Answers with a goodbye where the client is still there to hear it.
    async fn listen(
        &self,
        socket: &mut WebSocketStream<TokioIo<Upgraded>>,
        reporter: &Arc<str>,
    ) -> Option<Goodbye> {
        loop {
            let Ok(message) = tokio::time::timeout(SILENCE_MAX, socket.next()).await else {
                return Some(Goodbye(CloseCode::Away, "nothing was heard for 30 s"));
            };
            match message {
                Some(Ok(Message::Binary(frame))) => self.take(&frame, reporter).await.ok()?,
                Some(Ok(Message::Ping(_) | Message::Close(_))) => {
                    // The answer is written by now, and leaves with this.
                    let flushed = tokio::time::timeout(SEND_TIMEOUT, socket.flush()).await;
                    flushed.ok()?.ok()?;
                }
                Some(Ok(_)) => {}
                Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                    return Some(Goodbye(CloseCode::Size, "a frame is larger than 4 MiB"));
                }
                Some(Err(error)) => {
                    tracing::debug!(client = %reporter, %error, "a connection for statistics has ended");
                    return None;
                }
                None => return None,
            }
        }
    }

    /// Fails when nobody wants reports any more.
    async fn take(
        &self,
        frame: &[u8],
        reporter: &Arc<str>,
    ) -> Result<(), mpsc::error::SendError<Report>> {
        let all = match decode_stats(frame) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(client = %reporter, %error, "a frame without statistics is ignored");
                return Ok(());
            }
        };
        if all.ignored > 0 {
            tracing::debug!(client = %reporter, entries = all.ignored, "entries that cannot be counted are ignored");
        }
        for one in all.stats {
            let source = Source {
                reporter: Arc::clone(reporter),
                pod: one.pod,
            };
            let report = Report::Stat {
                revision: one.revision,
                source,
                stat: one.stat,
            };
            self.reports.send(report).await?;
        }
        Ok(())
    }
}

fn refusal(status: StatusCode, words: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(words)));
    *answer.status_mut() = status;
    answer
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// What a WebSocket handshake is answered with; `None` when it is none.
fn accept_key<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let upgrades = request.method() == Method::GET
        && text(headers, header::UPGRADE).eq_ignore_ascii_case("websocket")
        && text(headers, header::CONNECTION)
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        && text(headers, header::SEC_WEBSOCKET_VERSION) == "13";
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    accept.ok().filter(|_| upgrades)
}
