//! The beginning of a connection to an https listener: bounded in number and time, and a word to those who do not speak TLS.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Peer;
use crate::plane::Plane;

/// The first byte of every TLS connection: a record with a handshake message.
const HANDSHAKE_RECORD: u8 = 0x16;
/// As much of a plain request as is read before it is answered: unread bytes would cut the answer off.
const PLAIN_BYTES_MAX: usize = 8 * 1024;
/// What a request without TLS is answered.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 68\r\nconnection: close\r\n\r\nthis port speaks https: ask for it with https:// instead of http://\n";

/// Makes a connection secure. `None` when it came to nothing.
pub(super) async fn secure(
    plane: &Plane,
    stream: TcpStream,
    peer: &Arc<Peer>,
    tls: &TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    let options = plane.options();
    let source = peer.address.ip().to_canonical();
    let each_max = if source.is_loopback() {
        options.handshakes_loopback_max
    } else {
        options.handshakes_per_source_max
    };
    let Some(_share) = plane.handshakes.take(source, each_max) else {
        tracing::debug!(client = %peer.address, "too many TLS handshakes of this source");
        return None;
    };
    let shaken = tokio::time::timeout(options.handshake_timeout, handshake(stream, tls)).await;
    match shaken {
        Ok(Ok(Some(stream))) => {
            let name = stream.get_ref().1.server_name().unwrap_or_default();
            peer.server_name.get_or_init(|| name.into());
            Some(stream)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, client = %peer.address, "TLS handshake");
            None
        }
        Ok(Ok(None)) | Err(_) => None,
    }
}

async fn handshake(
    mut stream: TcpStream,
    tls: &TlsAcceptor,
) -> std::io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] == HANDSHAKE_RECORD {
        return tls.accept(stream).await.map(Some);
    }
    if first[0].is_ascii_uppercase() {
        let mut request = vec![0; PLAIN_BYTES_MAX];
        let length = stream.read(&mut request).await?;
        if is_probe(&request[..length]) {
            return Ok(None);
        }
        stream.write_all(PLAIN_ANSWER).await?;
        stream.shutdown().await?;
    }
    Ok(None)
}

/// Knative's probers take every answer but 404 and 503 for the one they wait for.
fn is_probe(request: &[u8]) -> bool {
    const HEADER: &[u8] = b"k-network-probe:";
    request
        .windows(HEADER.len())
        .any(|part| part.eq_ignore_ascii_case(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
