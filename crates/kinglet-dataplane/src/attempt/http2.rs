//! One request over a shared HTTP/2 connection.

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;

use super::{Attempt, Head, REUSES_MAX, UpstreamError, describe};
use crate::connect;
use crate::request_body::{Replay, RequestBody};
use crate::response_body::ConnectionDriver;

pub(super) async fn send(
    attempt: &mut Attempt<'_>,
    mut request: Request<RequestBody>,
) -> Result<Head, UpstreamError> {
    let mut cause = String::new();
    let mut retryable = attempt.retryable && request.body().is_empty();
    for _ in 0..REUSES_MAX {
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
            None if retryable && stream.is_reused() => {
                retryable = false;
                attempt.container.h2.discard(&stream);
                copy
            }
            None if retryable && attempt.to_component => {
                attempt.died = true;
                attempt.container.h2.discard(&stream);
                return Err(UpstreamError::Unsent(Box::new(copy), cause));
            }
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
