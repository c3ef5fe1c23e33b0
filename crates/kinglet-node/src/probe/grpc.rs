//! `grpc`: the health protocol (`grpc.health.v1.Health/Check`).

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::probe::connect::connect;
use crate::probe::prober::{ANSWER_BYTES_MAX, ProbeResult, ProbeTarget, Success, USER_AGENT};

/// `SERVING` in the health protocol.
const SERVING: u8 = 1;
const STATUS_NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub(crate) async fn probe(
    target: &ProbeTarget,
    port: u16,
    service: &str,
    from_inside: bool,
) -> ProbeResult {
    let authority = format!("{}:{port}", target.sandbox.address());
    let connected = match connect(target, None, port, from_inside).await {
        Ok(connected) => connected,
        Err(error) => {
            let message = format!("failed to connect service {authority:?}: {error}");
            return if error.is_connection_refused() {
                ProbeResult::Refused(message)
            } else {
                ProbeResult::Failure(message)
            };
        }
    };
    match check(connected.stream, &authority, service).await {
        Ok(()) => ProbeResult::Success(Success {
            loopback_only: connected.loopback_only.then_some(port),
            warning: None,
        }),
        Err(message) => ProbeResult::Failure(message),
    }
}

/// Asks for the health of one service.
async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("failed to connect service {authority:?}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
    let answer = async {
        let request =
            http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", USER_AGENT)
                .body(Full::new(health_request(service)))
                .map_err(|error| failed(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let in_headers = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let collected = body.collect().await.map_err(|error| failed(&error))?;
        let status = collected
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned())
            .or(in_headers);
        verdict(
            status.as_ref().map(http::HeaderValue::as_bytes),
            &collected.to_bytes(),
        )
    };
    // As for HTTP/1.1: the end of the connection must not hide an answer that came before it.
    let driver = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driver => never,
    }
}

fn verdict(grpc_status: Option<&[u8]>, frame: &[u8]) -> Result<(), String> {
    match grpc_status {
        Some(b"0") | None => {}
        Some(b"12") => return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
        Some(other) => {
            return Err(format!("error: health rpc failed: code = {}", String::from_utf8_lossy(other)));
        }
    }
    match health_status(frame) {
        Some(SERVING) => Ok(()),
        other => {
            let name = STATUS_NAMES.get(usize::from(other.unwrap_or(0)));
            Err(format!(
                "service unhealthy (responded with {:?})",
                name.unwrap_or(&STATUS_NAMES[0])
            ))
        }
    }
}

/// `HealthCheckRequest { service }` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("below 128"));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    Bytes::from(frame)
}

/// The status in a framed `HealthCheckResponse`.
fn health_status(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [0x08, status, ..] => Some(*status),
        [] => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_protocol_in_bytes() {
        assert_eq!(health_request(""), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(
            health_request("ab"),
            Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'])
        );
        assert_eq!(health_request(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(
            health_status(&[0, 0, 0, 0, 0]),
            Some(0),
            "an empty message is UNKNOWN"
        );
        assert_eq!(health_status(&[0]), None);
    }
}
