//! `kubectl port-forward`: connections to ports of a pod, over SPDY, itself carried in a WebSocket by newer clients.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::spdy::{self, Stream};
use super::{Connection, Upgrade, channels, websocket};
use crate::status::Status;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What is read of a port at once.
const READ_BYTES: usize = 32 << 10;
/// Error streams that wait for their data stream: the client opens both at once.
const PAIRS_WAITING_MAX: usize = 128;
/// Connections to the pod at once, of one client; also those count of which the client has ended its half.
const FORWARDS_MAX: usize = 256;
const STREAMS_WAITING_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tunnel,
    Spdy,
}

pub(super) fn negotiate(upgrade: &Upgrade) -> Result<Protocol, Status> {
    let refused = |offered: Vec<&str>, accepted: &str| {
        Err(Status::bad_request(format!(
            "unable to negotiate protocol: client supports {offered:?}, server accepts [{accepted}]"
        )))
    };
    if upgrade.wants("websocket") {
        let offered = upgrade.list("sec-websocket-protocol");
        return if offered.contains(&TUNNEL) {
            Ok(Protocol::Tunnel)
        } else {
            refused(offered, TUNNEL)
        };
    }
    let offered = upgrade.list(channels::SPDY_HEADER);
    if upgrade.wants(channels::SPDY_VERSION) && (offered.is_empty() || offered.contains(&PROTOCOL))
    {
        Ok(Protocol::Spdy)
    } else {
        refused(offered, PROTOCOL)
    }
}

impl Protocol {
    pub(super) fn headers(
        self,
        upgrade: &Upgrade,
    ) -> Result<Vec<(header::HeaderName, HeaderValue)>, Status> {
        match self {
            Self::Tunnel => websocket::headers(upgrade, TUNNEL),
            Self::Spdy => Ok(channels::spdy_headers(PROTOCOL)),
        }
    }

    /// Serves a client until it is gone.
    pub(super) async fn speak<D, F>(self, connection: Upgraded, pod: &str, dial: D)
    where
        D: Fn(u16) -> F + Sync,
        F: Future<Output = Result<Connection, String>> + Send,
    {
        let connection = TokioIo::new(connection);
        match self {
            Self::Tunnel => {
                let tunnel = websocket::Tunnel::new(websocket::accept(connection).await);
                serve(tunnel, pod, dial).await;
            }
            Self::Spdy => serve(connection, pod, dial).await,
        }
    }
}

async fn serve<D, F>(connection: impl AsyncRead + AsyncWrite + Unpin, pod: &str, dial: D)
where
    D: Fn(u16) -> F + Sync,
    F: Future<Output = Result<Connection, String>> + Send,
{
    let (opened, mut streams) = mpsc::channel::<Stream>(STREAMS_WAITING_MAX);
    let forwards = async {
        let mut waiting: HashMap<String, Stream> = HashMap::new();
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let stream = tokio::select! {
                stream = streams.recv() => stream,
                Some(()) = running.next() => continue,
            };
            let Some(stream) = stream else { return };
            let request = stream
                .headers
                .get("requestid")
                .unwrap_or_default()
                .to_owned();
            match stream.headers.get("streamtype") {
                Some("error") if waiting.len() < PAIRS_WAITING_MAX => {
                    waiting.insert(request, stream);
                }
                Some("data") => match waiting.remove(&request) {
                    Some(error) if running.len() < FORWARDS_MAX => {
                        running.push(forward(stream, error, pod, &dial).boxed());
                    }
                    Some(error) => {
                        let words = format!("{FORWARDS_MAX} connections are open already");
                        refuse(&stream, &error, &words).await;
                    }
                    None => {}
                },
                _ => {}
            }
        }
    };
    tokio::select! {
        _ = spdy::serve(connection, opened) => {}
        () = forwards => {}
    }
}

/// Carries one connection. A failure is told on the error stream, which ends with the connection.
async fn forward<D, F>(data: Stream, error: Stream, pod: &str, dial: &D)
where
    D: Fn(u16) -> F + Sync,
    F: Future<Output = Result<Connection, String>> + Send,
{
    let asked = data.headers.get("port").unwrap_or_default().to_owned();
    let dialled = match asked.parse::<u16>() {
        Ok(port) if port > 0 => dial(port).await,
        _ => Err(format!("{asked:?} is no port")),
    };
    match dialled {
        Ok(connection) => carry(data, connection).await,
        Err(why) => {
            let words = format!("error forwarding port {asked} to pod {pod}: {why}");
            return refuse(&data, &error, &words).await;
        }
    }
    let _ = error.output.finish().await;
}

/// Ends a connection that was not made, with the reason on its error stream.
async fn refuse(data: &Stream, error: &Stream, words: &str) {
    let _ = error.output.send(words.as_bytes()).await;
    let _ = data.output.finish().await;
    let _ = error.output.finish().await;
}

async fn carry(mut data: Stream, connection: Connection) {
    let (mut from_port, mut to_port) = tokio::io::split(connection);
    let sending = async {
        while let Some(piece) = data.input.recv().await {
            if to_port.write_all(&piece.bytes).await.is_err() {
                return;
            }
        }
        let _ = to_port.shutdown().await;
    };
    let receiving = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = from_port.read(&mut buffer).await.unwrap_or(0);
            if count == 0 || data.output.send(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = data.output.finish().await;
    };
    // When the port has closed, nothing that the client still sends could arrive.
    tokio::pin!(receiving);
    tokio::select! {
        () = &mut receiving => {}
        () = sending => receiving.await,
    }
}
