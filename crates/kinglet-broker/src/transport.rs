//! How requests leave: the root gives it ([`Transport`]); [`Direct`] is one over sockets.

mod direct;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use kinglet_decide::call::CallBody;

use crate::feed::Destination;

pub use direct::{Connect, Direct, OwnNetwork};

/// Why nothing answered, in the words of Go's dialer, which people know: `dial tcp 10.0.0.1:80: connect: connection refused`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Sends requests to sinks.
pub trait Transport: Send + Sync {
    /// Sends one request; its URI is absolute, and the destination's or where a redirect of it led. Resolves with the head
    /// of the answer. Dropping the future or the body ends the exchange.
    fn send<'a>(
        &'a self,
        destination: &'a Destination,
        request: Request<Bytes>,
    ) -> BoxFuture<'a, Result<Response<CallBody>, TransportError>>;
}
