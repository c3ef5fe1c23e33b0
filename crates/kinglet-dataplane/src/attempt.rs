//! One request to one container, up to the head of its answer.
//!
//! What can be tried again is told apart from what cannot: a request that no container has begun to read comes back
//! whole ([`UpstreamError::Unsent`]); one that may have been acted on does not ([`UpstreamError::Broken`]). The one case
//! between the two, a reused connection that breaks before the first byte of a response, is repaired here once, on a
//! fresh connection, for the requests that Go's transport sends again as well ([`Attempt::retryable`]). Between components
//! (gateway, activator, queue-proxy) such a request comes back whole also when a fresh connection breaks.

mod http1;
mod http2;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use kinglet_decide::feed::Protocol;
use kinglet_process::Tasks;
use tokio::time::{Instant, Sleep};

use crate::breaker::Container;
use crate::options::Options;
use crate::pool::RawTarget;
use crate::request_body::RequestBody;
use crate::response_body::ConnectionDriver;

/// Connections that turned out closed, tried one after the other for one request.
const REUSES_MAX: usize = 3;

/// The head of an answer, and what reads on.
pub(crate) struct Head {
    pub(crate) response: Response<Incoming>,
    pub(crate) driver: ConnectionDriver,
}

/// No answer came.
pub(crate) enum UpstreamError {
    /// No container has seen the request: try another.
    Unsent(Box<Request<RequestBody>>, String),
    /// A container may have seen it.
    Broken(String),
    /// The deadline passed.
    Timeout,
}

/// How a request travels.
pub(crate) struct Attempt<'a> {
    pub(crate) container: &'a Arc<Container>,
    pub(crate) options: &'a Options,
    pub(crate) upstreams: &'a Tasks,
    pub(crate) protocol: Protocol,
    /// The client asks to leave HTTP behind.
    pub(crate) upgrade: bool,
    /// The method is GET, HEAD, OPTIONS or TRACE, or the client gave an idempotency key.
    pub(crate) retryable: bool,
    /// The peer is a component, not a user's program: where it breaks off before it answers, it has died, and such a
    /// request goes to another one.
    pub(crate) to_component: bool,
    /// That has happened.
    pub(crate) died: bool,
    /// The request target as the client spelled it, where its URI cannot say that.
    pub(crate) raw_target: Option<RawTarget>,
    /// Set when a connection had to be made (for traces).
    pub(crate) connected_at: Option<Instant>,
}

/// Sends `request`; answers by `deadline`, when there is one.
pub(crate) async fn send(
    attempt: &mut Attempt<'_>,
    request: Request<RequestBody>,
    deadline: Option<Pin<&mut Sleep>>,
) -> Result<Head, UpstreamError> {
    let exchange = async {
        match (attempt.protocol, attempt.upgrade) {
            (_, true) => http1::upgrade(attempt, request).await,
            (Protocol::Http1, false) => http1::send(attempt, request).await,
            (Protocol::H2c, false) => http2::send(attempt, request).await,
        }
    };
    let Some(mut deadline) = deadline else {
        return exchange.await;
    };
    let mut exchange = pin!(exchange);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = exchange.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        deadline
            .as_mut()
            .poll(cx)
            .map(|()| Err(UpstreamError::Timeout))
    })
    .await
}

/// The error of a request that hyper could not send, or whose response did not come.
fn failed(mut failed: hyper::client::conn::TrySendError<Request<RequestBody>>) -> UpstreamError {
    match failed.take_message() {
        Some(unsent) => UpstreamError::Unsent(Box::new(unsent), describe(failed.error())),
        None => UpstreamError::Broken(describe(failed.error())),
    }
}

/// The deepest cause is the one that helps. A connection that ends without a response is `EOF`, Go's word for it, which is
/// what Knative answers and what people look for.
fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
