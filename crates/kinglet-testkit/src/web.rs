//! One HTTP request to the gateway, by Host header.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;

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

/// Sends any request on a fresh HTTP/1.1 connection.
pub async fn send(gateway: &str, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response> {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(gateway)
            .await
            .with_context(|| format!("connecting to {gateway}"))?;
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
    tokio::time::timeout(crate::until::patiently(Duration::from_secs(60)), exchange)
        .await
        .context("no answer within 60 s")?
}
