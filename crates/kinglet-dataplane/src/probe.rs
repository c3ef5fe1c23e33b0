//! Asking a gateway in another process what it serves for a host (spec/serving.md 6.5).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kinglet_process::unverified;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Room for the head of an answer; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HASH: &str = "k-network-hash";

/// What a gateway answered a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAnswer {
    /// The status.
    pub status: u16,
    /// `K-Network-Hash`.
    pub hash: Option<String>,
}

/// Asks gateways. Cheap to clone.
#[derive(Clone)]
pub struct GatewayProber(TlsConnector);

impl GatewayProber {
    /// Fails when the process has no cryptography for TLS.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self(TlsConnector::from(unverified::client_config()?)))
    }

    /// One probe, on a connection of its own. Bounded by the caller.
    pub async fn ask(
        &self,
        at: SocketAddr,
        host: &str,
        tls: bool,
    ) -> Result<GatewayAnswer, String> {
        let stream = TcpStream::connect(at)
            .await
            .map_err(|error| error.to_string())?;
        if !tls {
            return exchange(stream, host).await;
        }
        let name = unverified::server_name(Some(host), at.ip());
        let stream = self.0.connect(name, stream).await;
        exchange(stream.map_err(|error| error.to_string())?, host).await
    }
}

async fn exchange<S>(stream: S, host: &str) -> Result<GatewayAnswer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get("/healthz")
        .header(header::HOST, host)
        .header(header::USER_AGENT, "Knative-Ingress-Probe")
        .header(header::CONNECTION, "close")
        .header("k-network-probe", "probe")
        .header(HASH, "override")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request);
    tokio::pin!(response);
    let response = tokio::select! {
        response = &mut response => response,
        // The answer was read before the end.
        _ = connection => response.await,
    };
    let response = response.map_err(|error| error.to_string())?;
    let hash = response.headers().get(HASH);
    Ok(GatewayAnswer {
        status: response.status().as_u16(),
        hash: hash.map(|hash| String::from_utf8_lossy(hash.as_bytes()).into_owned()),
    })
}
