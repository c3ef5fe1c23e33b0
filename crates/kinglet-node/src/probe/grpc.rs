//! `grpc`: the health protocol (`grpc.health.v1.Health/Check`).

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::probe::connect::connect;
use crate::probe::prober::{ANSWER_BYTES_MAX, ProbeResult, ProbeTarget, Success, USER_AGENT};

/// `SERVING` in the health protocol.
const SERVING: u8 = 1;
const STATUS_NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// gRPC's own codes, as its Go library names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const DEADLINE_EXCEEDED: usize = 4;
const UNIMPLEMENTED: usize = 12;

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CallStatus {
    code: usize,
    message: String,
}

impl CallStatus {
    /// Reads it from trailers, or from the headers of an answer that has nothing else.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = headers.get("grpc-message");
        let message = message.map(|message| percent_decode(message.as_bytes()));
        Some(Self {
            code,
            message: message.unwrap_or_default(),
        })
    }
}

fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let decoded = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match decoded.filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) async fn probe(
    target: &ProbeTarget,
    port: u16,
    service: &str,
    from_inside: bool,
    timeout: Duration,
) -> ProbeResult {
    let authority = format!("{}:{port}", target.sandbox.address());
    let deadline = tokio::time::Instant::now() + timeout;
    // A kubelet's client tries again until its time is over, whatever keeps it from connecting.
    let not_connected = format!(
        "timeout: failed to connect service {authority:?} within {timeout:?}: context deadline exceeded"
    );
    let connecting = connect(target, None, port, from_inside);
    let connected = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) if error.is_connection_refused() => {
            return ProbeResult::Refused(not_connected);
        }
        Ok(Err(error)) => {
            return ProbeResult::Failure(format!(
                "error: failed to connect service at {authority:?}: {error}"
            ));
        }
        Err(_) => return ProbeResult::Failure(not_connected),
    };
    let checking = check(connected.stream, &authority, service);
    let checked = tokio::time::timeout_at(deadline, checking).await;
    let checked = checked.unwrap_or_else(|_| {
        Err(format!(
            "timeout: health rpc did not complete within {timeout:?}"
        ))
    });
    match checked {
        Ok(()) => ProbeResult::Success(Success {
            loopback_only: connected.loopback_only.then_some(port),
            warning: None,
        }),
        Err(message) => ProbeResult::Failure(message),
    }
}

/// Asks for the health of one service.
async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("error: failed to connect service at {authority:?}: {error}")
    };
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
        let in_headers = CallStatus::of(response.headers());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let collected = body.collect().await.map_err(|error| failed(&error))?;
        let status = collected.trailers().and_then(CallStatus::of).or(in_headers);
        verdict(&status.unwrap_or_default(), &collected.to_bytes())
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

fn verdict(status: &CallStatus, frame: &[u8]) -> Result<(), String> {
    let CallStatus { code, message } = status;
    match *code {
        0 => {}
        UNIMPLEMENTED => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        DEADLINE_EXCEEDED => return Err("timeout: health rpc did not complete".to_owned()),
        other => {
            let unknown = format!("Code({other})");
            let name = CODES.get(other).copied().unwrap_or(&unknown);
            return Err(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {message}"
            ));
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
    fn statuses_in_a_kubelets_words() {
        let status = |code, message: &str| CallStatus {
            code,
            message: message.to_owned(),
        };
        let serving = [0, 0, 0, 0, 2, 8, 1];
        assert_eq!(verdict(&CallStatus::default(), &serving), Ok(()));
        assert_eq!(
            verdict(&CallStatus::default(), &[0, 0, 0, 0, 2, 8, 2]),
            Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned())
        );
        assert_eq!(
            verdict(&status(5, "unknown service"), &[]),
            Err(
                "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"
                    .to_owned()
            )
        );
        let none = verdict(&status(12, "x"), &[]).expect_err("none");
        assert!(none.ends_with("(grpc.health.v1.Health): x"), "{none}");
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static("5"));
        headers.insert(
            "grpc-message",
            http::HeaderValue::from_static("50%25 of %E2%82%AC%zz"),
        );
        assert_eq!(
            CallStatus::of(&headers),
            Some(status(5, "50% of \u{20ac}%zz"))
        );
    }

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
