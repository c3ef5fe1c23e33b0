//! Requests over sockets, with TLS by the destination's certificates: for clusters and tests.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kinglet_decide::call::{BoxError, CallBody};
use kinglet_process::egress;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Transport, TransportError};
use crate::feed::Destination;

/// Sets of certificates for which connections are kept; the least that a namespace per destination needs.
const CLIENTS_MAX: usize = 256;
/// Idle connections to one host: as many as one subscription has events in hand.
const IDLE_MAX: usize = crate::engine::IN_HAND_MAX;
/// Headers of an answer: a reply is an event, and each of its extensions a header (hyper's default is 100).
const ANSWER_HEADERS_MAX: usize = 2 * kinglet_events::event::EXTENSIONS_MAX + 100;
/// As Go's client has it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// As Go's dialer has it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes connections.
pub trait Connect: Send + Sync + 'static {
    /// Connects to a host and port, or says why not in the words of Go's dialer.
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, Result<TcpStream, String>>;
}

/// Connects from this process's own network.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNetwork;

impl Connect for OwnNetwork {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, Result<TcpStream, String>> {
        Box::pin(async move {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let addresses = tokio::net::lookup_host((bare, port))
                .await
                .map_err(|error| format!("dial tcp: lookup {host}: {error}"))?;
            let mut failure = format!("dial tcp: lookup {host}: no such host");
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => {
                        failure = format!("dial tcp {address}: {}", egress::describe(&error));
                    }
                }
            }
            Err(failure)
        })
    }
}

impl Connect for kinglet_process::Egress {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, Result<TcpStream, String>> {
        let egress = self.clone();
        Box::pin(async move {
            let connected = Self::connect(&egress, &host, port).await;
            connected.map_err(|error| error.to_string())
        })
    }
}

type HttpClient = Client<Connector, Full<Bytes>>;

/// A [`Transport`] over sockets that `C` makes.
pub struct Direct {
    connect: Arc<dyn Connect>,
    /// By the certificates that are trusted beside the system's.
    clients: Mutex<HashMap<Option<Arc<str>>, HttpClient>>,
    system: RootCertStore,
}

impl Direct {
    /// Connections are made by `connect`.
    pub fn new(connect: impl Connect) -> Self {
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self {
            connect: Arc::new(connect),
            clients: Mutex::default(),
            system,
        }
    }

    fn client(&self, ca_certs: Option<&Arc<str>>) -> Result<HttpClient, TransportError> {
        let key = ca_certs.cloned();
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let tls = self
            .tls(ca_certs)
            .map_err(|why| TransportError(format!("reading the destination's CACerts: {why}")))?;
        let connector = Connector {
            connect: Arc::clone(&self.connect),
            tls: Arc::new(tls),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .http1_max_headers(ANSWER_HEADERS_MAX)
            .build(connector);
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.clear(); // their connections end when their requests do
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn tls(&self, ca_certs: Option<&Arc<str>>) -> Result<ClientConfig, String> {
        let mut roots = self.system.clone();
        if let Some(pem) = ca_certs {
            for certificate in kinglet_process::tls::authorities(pem.as_bytes())? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}

impl Transport for Direct {
    fn send<'a>(
        &'a self,
        destination: &'a Destination,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<CallBody>, TransportError>> {
        Box::pin(async move {
            let client = self.client(destination.ca_certs.as_ref())?;
            let answer = client.request(request.map(Full::new)).await;
            let answer = answer.map_err(|error| TransportError(words(&error)))?;
            Ok(answer.map(|body| {
                let body: CallBody = Box::pin(body.map_err(BoxError::from));
                body
            }))
        })
    }
}

/// The words of the deepest cause.
fn words(error: &Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    match deepest.to_string() {
        // As Go says when the other side hangs up before it answers.
        closed if closed.starts_with("connection closed before message") => "EOF".to_owned(),
        words => words,
    }
}

#[derive(Clone)]
struct Connector {
    connect: Arc<dyn Connect>,
    tls: Arc<ClientConfig>,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connector.dial(&uri))
                .await
                .unwrap_or_else(|_| Err(io::Error::other("dial tcp: i/o timeout")))
        })
    }
}

impl Connector {
    async fn dial(&self, uri: &Uri) -> io::Result<Stream> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.connect.connect(host.clone(), port).await;
        let stream = stream.map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(Stream::Plain(TokioIo::new(stream)));
        }
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| io::Error::other(format!("tls: {host} is no name of a server")))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|error| io::Error::other(format!("tls: {error}")))?;
        Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
    }
}

/// A connection, secured or not.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
