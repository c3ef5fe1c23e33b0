//! One request to one container, up to the head of its answer.
//!
//! What can be tried again is told apart from what cannot: a request that no container has begun to read comes back
//! whole ([`UpstreamError::Unsent`]); one that may have been acted on does not ([`UpstreamError::Broken`]). The one case between
//! the two, an idle connection that the container closed just as we used it, is repaired here: requests that are safe
//! to repeat are repeated on a new connection, the others never go out on one that has rested for long.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use kinglet_decide::feed::Protocol;
use kinglet_process::Tasks;
use tokio::time::{Instant, Sleep};

use crate::breaker::Container;
use crate::connect;
use crate::options::Options;
use crate::pool::H1Connection;
use crate::request_body::{Progress, Replay, RequestBody};
use crate::response_body::ConnectionDriver;

/// After this long at rest a connection may well be about to be closed by the container (5 s is common).
const RESTED: Duration = Duration::from_secs(1);

/// Connections that turned out closed, tried one after the other for one request.
const RETRIES_MAX: usize = 3;

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
            (_, true) => upgrade(attempt, request).await,
            (Protocol::Http1, false) => h1(attempt, request).await,
            (Protocol::H2c, false) => h2(attempt, request).await,
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

async fn h1(
    attempt: &mut Attempt<'_>,
    mut request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    for _ in 0..RETRIES_MAX {
        let repeatable = request.body().is_empty() && request.method().is_idempotent();
        let Some(connection) = idle_connection(attempt.container, repeatable).await else {
            break;
        };
        let copy =
            (repeatable && connection.idle_since.elapsed() > RESTED).then(|| bare_copy(&request));
        match h1_on(attempt, connection, request).await {
            Ok(head) => return Ok(head),
            Err(UpstreamError::Unsent(unsent, _)) => request = *unsent,
            Err(error) => match copy {
                Some(copy) => request = copy,
                None => return Err(error),
            },
        }
    }
    match connect::h1(attempt.container, attempt.options).await {
        Ok(connection) => {
            attempt.connected_at = Some(Instant::now());
            h1_on(attempt, Box::new(connection), request).await
        }
        Err(error) => Err(UpstreamError::Unsent(Box::new(request), error.to_string())),
    }
}

/// An idle connection that is still open. One that has rested goes only to requests that may be repeated.
async fn idle_connection(container: &Container, repeatable: bool) -> Option<Box<H1Connection>> {
    poll_fn(|cx| {
        while let Some(mut connection) = container.pop_idle() {
            if (repeatable || connection.idle_since.elapsed() <= RESTED) && connection.is_usable(cx)
            {
                return Poll::Ready(Some(connection));
            }
        }
        Poll::Ready(None)
    })
    .await
}

async fn h1_on(
    attempt: &Attempt<'_>,
    mut connection: Box<H1Connection>,
    request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let progress = request.body().progress();
    let response = {
        let mut answer = pin!(connection.sender.try_send_request(request));
        let engine = &mut connection.engine;
        let mut ended = false;
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if ended {
                return Poll::Pending;
            }
            ended = Pin::new(&mut *engine).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    };
    match response {
        Ok(response) => Ok(Head {
            response,
            driver: driver(attempt.upstreams, connection, progress.as_ref()),
        }),
        Err(mut failed) => match failed.take_message() {
            Some(unsent) => Err(UpstreamError::Unsent(
                Box::new(unsent),
                describe(failed.error()),
            )),
            None => Err(UpstreamError::Broken(describe(failed.error()))),
        },
    }
}

/// The reader of the answer drives the connection, unless the request is still on its way: then a task does, because
/// the client may well send all of it before it reads on.
fn driver(
    upstreams: &Tasks,
    connection: Box<H1Connection>,
    progress: Option<&Arc<Progress>>,
) -> ConnectionDriver {
    if progress.is_none_or(|progress| progress.is_done()) {
        return ConnectionDriver::Reader(connection);
    }
    let H1Connection {
        sender,
        engine,
        idle_since: _,
    } = *connection;
    upstreams.spawn_cancellable("h1 connection", async move {
        let _sender = sender;
        if let Err(error) = engine.await {
            tracing::debug!(%error, "connection to a container ended");
        }
    });
    ConnectionDriver::Task
}

async fn upgrade(
    attempt: &mut Attempt<'_>,
    request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let H1Connection {
        mut sender,
        engine,
        idle_since: _,
    } = match connect::h1(attempt.container, attempt.options).await {
        Ok(connection) => connection,
        Err(error) => return Err(UpstreamError::Unsent(Box::new(request), error.to_string())),
    };
    attempt.connected_at = Some(Instant::now());
    let answer = sender.try_send_request(request);
    attempt
        .upstreams
        .spawn_cancellable("upgraded connection", async move {
            if let Err(error) = engine.with_upgrades().await {
                tracing::debug!(%error, "connection to a container ended");
            }
        });
    match answer.await {
        // The sender stays until the head is here, or the connection would close under the request.
        Ok(response) => {
            drop(sender);
            Ok(Head {
                response,
                driver: ConnectionDriver::Task,
            })
        }
        Err(mut failed) => match failed.take_message() {
            Some(unsent) => Err(UpstreamError::Unsent(
                Box::new(unsent),
                describe(failed.error()),
            )),
            None => Err(UpstreamError::Broken(describe(failed.error()))),
        },
    }
}

async fn h2(
    attempt: &mut Attempt<'_>,
    mut request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let mut cause = String::new();
    for _ in 0..RETRIES_MAX {
        let (mut sender, stream) =
            match connect::h2(attempt.container, attempt.options, attempt.upstreams).await {
                Ok(shared) => shared,
                Err(error) => {
                    return Err(UpstreamError::Unsent(Box::new(request), error.to_string()));
                }
            };
        attempt.connected_at = Some(Instant::now());
        let replay = request.body_mut().keep();
        let copy = bare_copy(&request);
        let mut failed = match sender.try_send_request(request).await {
            Ok(response) => {
                return Ok(Head {
                    response,
                    driver: ConnectionDriver::Shared(stream),
                });
            }
            Err(failed) => failed,
        };
        cause = describe(failed.error());
        let unsent = failed.take_message();
        if unsent.is_some() || is_refusal(failed.error()) {
            // The container is saying goodbye on this connection; the next one is new.
            attempt.container.h2.discard(&stream);
        }
        request = match unsent {
            Some(unsent) => unsent,
            None if is_refusal(failed.error()) => match once_more(copy, replay.as_ref()) {
                Some(request) => request,
                None => return Err(UpstreamError::Broken(cause)),
            },
            None => return Err(UpstreamError::Broken(cause)),
        };
    }
    Err(UpstreamError::Unsent(Box::new(request), cause))
}

/// Whether the container promises that it has not begun with the request (RFC 9113, 8.7).
fn is_refusal(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let goodbye = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (goodbye || refused);
        }
        cause = error.source();
    }
    false
}

fn once_more(
    mut copy: Request<RequestBody>,
    replay: Option<&Arc<Replay>>,
) -> Option<Request<RequestBody>> {
    if let Some(replay) = replay {
        *copy.body_mut() = RequestBody::again(replay)?;
    }
    Some(copy)
}

fn bare_copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The deepest cause is the one that helps.
fn describe(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
