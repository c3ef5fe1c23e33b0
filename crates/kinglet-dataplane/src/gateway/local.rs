//! A request to a service of this process.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};

use crate::headers::{self, HeaderFlags};
use crate::listen::{ActiveRequest, Peer};
use crate::local::{LocalBody, LocalEntry};
use crate::plane::Plane;
use crate::request_body::{BodySource, RequestBody};
use crate::response::{ProxyError, ResponseBody};

/// Hands the request over, and the response back as a stream.
pub(super) async fn call(
    plane: &Plane,
    peer: &Peer,
    service: &Arc<LocalEntry>,
    mut parts: Parts,
    body: BodySource,
    flags: HeaderFlags,
    active: ActiveRequest,
) -> Result<Response<ResponseBody>, ProxyError> {
    let permit = plane
        .locals
        .calls
        .clone()
        .try_acquire_owned()
        .map_err(|_| ProxyError::QueueFull)?;
    headers::to_local(&mut parts, flags, &peer.origin, &plane.request_ids);
    parts.extensions.clear();
    let body: kinglet_decide::call::CallBody = Box::pin(RequestBody::new(body));
    let mut response = service.handler.call(Request::from_parts(parts, body)).await;
    if response.status().is_informational() {
        tracing::error!(service = %service.key, status = %response.status(), "a local service answered with a status that ends nothing");
        return Err(ProxyError::Panicked);
    }
    *response.version_mut() = http::Version::HTTP_11;
    let flags = HeaderFlags::of(response.headers());
    headers::strip_hop(response.headers_mut(), flags, false);
    if response.status() == StatusCode::NO_CONTENT || response.body().is_end_stream() {
        return Ok(response.map(|_nothing| ResponseBody::Whole(None)));
    }
    Ok(response.map(|body| {
        ResponseBody::Local(Box::new(LocalBody::new(
            body,
            service.key.clone(),
            permit,
            active,
        )))
    }))
}
