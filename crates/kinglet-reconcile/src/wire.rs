//! One call to the API server, without types: a path, bytes in, bytes out, an error that says what it was.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;

use crate::error::ReconcileError;

/// Largest answer to a single call that is read into memory (a list page of 500 objects is far below it).
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What kube's `Status` answers hold that we need; read leniently.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StatusAnswer {
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) code: u16,
}

/// Starts a call and gives the body of a successful answer as a stream.
pub(crate) async fn open(
    client: &kube::Client,
    attempt: &str,
    request: Request<Vec<u8>>,
) -> Result<Body, ReconcileError> {
    let response = client
        .send(request.map(Body::from))
        .await
        .map_err(|source| ReconcileError::Unreachable {
            attempt: attempt.to_owned(),
            source: source.into(),
        })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = collect(attempt, response.into_body())
        .await
        .unwrap_or_default();
    Err(refusal(attempt, status, &body))
}

/// A whole call: the bytes of a successful answer.
pub(crate) async fn call(
    client: &kube::Client,
    attempt: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, ReconcileError> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("accept", "application/json");
    if !body.is_empty() {
        builder = builder.header("content-type", "application/json");
    }
    let request = builder.body(body).map_err(|source| {
        ReconcileError::Permanent(format!("{attempt}: {path} is no valid address: {source}"))
    })?;
    let body = open(client, attempt, request).await?;
    collect(attempt, body).await
}

/// The whole body of an answer.
pub(crate) async fn collect(attempt: &str, body: Body) -> Result<Bytes, ReconcileError> {
    let collected = Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|source| ReconcileError::Unreachable {
            attempt: attempt.to_owned(),
            source,
        })?;
    Ok(collected.to_bytes())
}

/// Turns a refusal into the fault that says whose it is.
pub(crate) fn refusal(attempt: &str, status: StatusCode, body: &[u8]) -> ReconcileError {
    let answer: StatusAnswer = serde_json::from_slice(body).unwrap_or_else(|_| StatusAnswer {
        message: String::from_utf8_lossy(body).trim().to_owned(),
        ..StatusAnswer::default()
    });
    let attempt = attempt.to_owned();
    let message = if answer.message.is_empty() {
        format!("the API server answered {status}")
    } else {
        answer.message
    };
    match (status.as_u16(), answer.reason.as_str()) {
        (409, "AlreadyExists") => ReconcileError::AlreadyExists { attempt, message },
        (409, _) => ReconcileError::Conflict { attempt, message },
        (404, _) => ReconcileError::NotFound { attempt, message },
        (code @ (408 | 429 | 500..=599), _) => ReconcileError::Busy {
            attempt,
            code,
            message,
        },
        (code, _) => ReconcileError::Refused {
            attempt,
            code,
            reason: answer.reason,
            message,
        },
    }
}

/// Percent-encodes a query value.
pub(crate) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
    out
}
