//! HTTP without a socket: services of this process behind Kubernetes Service names, and calls into the gateway.
//!
//! Types only; both sides of the seam know them, and neither knows the other.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A body that is read as it comes, with trailers.
pub type CallBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// What a call resolves to.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Response<CallBody>> + Send + 'a>>;

/// A local service behind the gateway; and the other way round, a call into the gateway.
///
/// Dropping the future, or the response's body, ends the exchange.
pub trait HttpService: Send + Sync + 'static {
    /// Answers one request. Both bodies are streams: the response may begin before the request has ended.
    fn call(&self, request: Request<CallBody>) -> Answer<'_>;
}
