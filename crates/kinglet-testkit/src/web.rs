//! One HTTP request to the gateway, by Host header.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A response read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body as text.
    pub body: String,
}

/// Asks once on a fresh connection.
pub async fn get(gateway: &str, host: &str, path: &str) -> anyhow::Result<Response> {
    send(
        gateway,
        http::Request::get(path)
            .header(http::header::HOST, host)
            .body(Full::new(Bytes::new()))?,
    )
    .await
}

/// Asks once over TLS, as a client that trusts the authorities of `ca_pem` alone, for `host` (which may have a port).
pub async fn get_tls(
    gateway: &str,
    host: &str,
    path: &str,
    ca_pem: &str,
) -> anyhow::Result<Response> {
    let mut roots = rustls::RootCertStore::empty();
    for root in kinglet_process::tls::authorities(ca_pem.as_bytes()).map_err(anyhow::Error::msg)? {
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.split(':').next().unwrap_or_default().to_owned();
    let connecting = async {
        let stream = tokio::net::TcpStream::connect(gateway)
            .await
            .with_context(|| format!("connecting to {gateway}"))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let secured = connector.connect(name.try_into()?, stream).await;
        secured.context("shaking hands")
    };
    let stream = tokio::time::timeout(crate::until::patiently(ANSWER_MAX), connecting)
        .await
        .context("no handshake within 60 s")??;
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .body(Full::new(Bytes::new()))?;
    exchange(stream, request).await
}

/// Sends any request on a fresh HTTP/1.1 connection.
pub async fn send(gateway: &str, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response> {
    let connecting = async {
        tokio::net::TcpStream::connect(gateway)
            .await
            .with_context(|| format!("connecting to {gateway}"))
    };
    let stream = tokio::time::timeout(crate::until::patiently(ANSWER_MAX), connecting)
        .await
        .context("no connection within 60 s")??;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
            anyhow::Ok(Response {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            })
        };
        tokio::pin!(answer);
        tokio::select! {
            // A connection that ends with its response has brought that response.
            biased;
            answer = &mut answer => answer,
            ended = connection => { ended?; answer.await }
        }
    };
    tokio::time::timeout(crate::until::patiently(ANSWER_MAX), exchange)
        .await
        .context("no answer within 60 s")?
}
