//! One request over an HTTP/1 connection, and asking a container to leave HTTP behind.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use kinglet_process::Tasks;
use tokio::time::Instant;

use super::{Attempt, Head, REUSES_MAX, UpstreamError, failed};
use crate::breaker::Container;
use crate::connect;
use crate::pool::H1Connection;
use crate::request_body::{Progress, RequestBody};
use crate::response_body::ConnectionDriver;

/// After this long at rest a connection may well be about to be closed by the container (5 s is common): only requests
/// that may be sent again go out on it.
const RESTED: Duration = Duration::from_secs(1);

/// Header lines of a request of our own: what a client may send (`Options::headers_max`, 100 by default) and what we add.
const REPLAY_HEADERS_MAX: usize = 256;

pub(super) async fn send(
    attempt: &mut Attempt<'_>,
    mut request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let retryable = attempt.retryable && request.body().is_empty();
    for _ in 0..REUSES_MAX {
        let Some(connection) = idle_connection(attempt.container, retryable).await else {
            break;
        };
        let log = connection.log.clone();
        log.begin(retryable, attempt.raw_target.clone());
        match send_on(attempt, connection, request).await {
            Ok(head) => return Ok(head),
            Err(UpstreamError::Unsent(unsent, _)) => request = *unsent,
            Err(error) => match log.head_for_replay().and_then(|head| request_of(&head)) {
                Some(again) => {
                    // Once only, and not on another connection that may have been closed as well.
                    request = again;
                    break;
                }
                None => return Err(error),
            },
        }
    }
    match connect::h1(attempt.container, attempt.options).await {
        Ok(connection) => {
            attempt.connected_at = Some(Instant::now());
            let log = connection.log.clone();
            let again = attempt.to_component && retryable;
            log.begin(again, attempt.raw_target.clone());
            match send_on(attempt, Box::new(connection), request).await {
                Err(UpstreamError::Broken(cause)) if again => {
                    match log.head_for_replay().and_then(|head| request_of(&head)) {
                        Some(request) => {
                            attempt.died = true;
                            Err(UpstreamError::Unsent(Box::new(request), cause))
                        }
                        None => Err(UpstreamError::Broken(cause)),
                    }
                }
                outcome => outcome,
            }
        }
        Err(error) => Err(UpstreamError::Unsent(Box::new(request), error.to_string())),
    }
}

/// An idle connection that is still open.
async fn idle_connection(container: &Container, retryable: bool) -> Option<Box<H1Connection>> {
    poll_fn(|cx| {
        while let Some(mut connection) = container.pop_idle() {
            let rested = connection.idle_since.elapsed() > RESTED;
            if (retryable || !rested) && connection.is_usable(cx) {
                return Poll::Ready(Some(connection));
            }
        }
        Poll::Ready(None)
    })
    .await
}

/// The request whose head these bytes are. It had no body.
fn request_of(head: &[u8]) -> Option<Request<RequestBody>> {
    let mut headers = [httparse::EMPTY_HEADER; REPLAY_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(head).ok()?.is_complete() {
        return None;
    }
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(parsed.path?).ok()?;
    for header in parsed.headers.iter() {
        request.headers_mut().append(
            HeaderName::from_bytes(header.name.as_bytes()).ok()?,
            HeaderValue::from_bytes(header.value).ok()?,
        );
    }
    Some(request)
}

async fn send_on(
    attempt: &Attempt<'_>,
    mut connection: Box<H1Connection>,
    request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let progress = request.body().progress();
    let response = {
        let H1Connection { sender, engine, .. } = &mut *connection;
        let mut response = pin!(sender.try_send_request(request));
        poll_fn(|cx| {
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response);
            }
            if let Some(driven) = engine
                && Pin::new(driven).poll(cx).is_ready()
            {
                *engine = None;
            }
            response.as_mut().poll(cx)
        })
        .await
    };
    let response = response.map_err(failed)?;
    let driver = driver(attempt.upstreams, connection, progress.as_ref());
    Ok(Head { response, driver })
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
        engine: Some(engine),
        idle_since: _,
        log: _,
    } = *connection
    else {
        // It has ended: all that the container had to say is in the body already.
        return ConnectionDriver::Task;
    };
    upstreams.spawn_cancellable("h1 connection", async move {
        let _sender = sender;
        if let Err(error) = engine.await {
            tracing::debug!(%error, "connection to a container ended");
        }
    });
    ConnectionDriver::Task
}

pub(super) async fn upgrade(
    attempt: &mut Attempt<'_>,
    request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let H1Connection {
        mut sender,
        engine,
        idle_since: _,
        log,
    } = match connect::h1(attempt.container, attempt.options).await {
        Ok(connection) => connection,
        Err(error) => return Err(UpstreamError::Unsent(Box::new(request), error.to_string())),
    };
    attempt.connected_at = Some(Instant::now());
    log.begin(false, attempt.raw_target.clone());
    let answer = sender.try_send_request(request);
    attempt
        .upstreams
        .spawn_cancellable("upgraded connection", async move {
            if let Some(engine) = engine
                && let Err(error) = engine.with_upgrades().await
            {
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
        Err(error) => Err(failed(error)),
    }
}
