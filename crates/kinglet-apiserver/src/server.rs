//! The server and the tower service in front of it.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kinglet_store::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::body::{ApiResponse, Body, refusal};
use crate::conversion::Places;
use crate::dispatch;
use crate::identity::{Identity, Origin, SharedIdentity};
use crate::options::Options;
use crate::state::ServerState;
use crate::status::Status;
use crate::webhook_client::Dial;

/// Largest request body, as the Kubernetes API server has it.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Time for a request's body to arrive; at this limit 3 MiB need 50 kB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The Kubernetes API over a [`Store`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiServer {
    pub(crate) server: Arc<ServerState>,
}

impl ApiServer {
    /// Serves what is in the store: built-in kinds and the CRDs found there.
    pub fn new(store: Store, options: Options) -> Self {
        let server = ServerState {
            registry: ArcSwap::default(),
            addresses: Mutex::new(crate::builtin::service::used_addresses(&store)),
            closing: CancellationToken::new(),
            turn: tokio::sync::Mutex::new(()),
            writes: kinglet_process::Tasks::new(),
            sessions: Arc::default(),
            documents: Mutex::default(),
            dial: OnceLock::new(),
            places: Places::default(),
            reloads: tokio::sync::watch::Sender::new(0),
            reloading: Mutex::default(),
            store,
            options,
        };
        server.reload();
        Self {
            server: Arc::new(server),
        }
    }

    /// Calls webhooks through this from now on; the first one given stays.
    pub fn reach_webhooks_by(&self, dial: Dial) {
        // A second network would be that of another node, of which there is none.
        let _ = self.server.dial.set(dial);
    }

    /// Calls webhooks through the egress from now on.
    pub fn leave_by(&self, egress: kinglet_process::Egress) {
        self.reach_webhooks_by(Arc::new(move |host, port| {
            let egress = egress.clone();
            async move {
                let connected = egress.connect(&host, port).await;
                connected.map_err(|error| error.to_string())
            }
            .boxed()
        }));
    }

    /// Store options that fit this server: how a revision is put into an object.
    pub fn store_options() -> kinglet_store::Options {
        kinglet_store::Options {
            restamp: crate::object::restamp,
            ..Default::default()
        }
    }

    /// A tower service acting as `identity`; what [`Identity::in_process`] needs no socket.
    pub fn service(&self, identity: Identity) -> ApiService {
        ApiService {
            server: Arc::clone(&self.server),
            user: Arc::new(identity),
        }
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.server.store
    }
}

/// The server as one identity sees it: a `tower::Service`, for `kube::Client::new` or a connection.
#[derive(Clone, Debug)]
pub struct ApiService {
    pub(crate) server: Arc<ServerState>,
    pub(crate) user: SharedIdentity,
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (Arc::clone(&self.server), Arc::clone(&self.user));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = match tokio::time::timeout(BODY_TIMEOUT, read(body)).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(status)) => return Ok(refusal(&status)),
                Err(_) => {
                    return Ok(refusal(&Status::new(
                        408,
                        "Timeout",
                        "the request body did not arrive in time",
                    )));
                }
            };
            let is_read = matches!(parts.method, Method::GET | Method::HEAD);
            if is_read || user.origin == Origin::InProcess {
                return Ok(answer(&server, &user, parts, bytes).await);
            }
            // A client that goes away does not take along what follows a stored change: served kinds, addresses, counts.
            let (reply, answered) = tokio::sync::oneshot::channel();
            let tasks = server.writes.clone();
            tasks.spawn("apiserver-write", async move {
                // Nobody may be there to be told.
                let _ = reply.send(answer(&server, &user, parts, bytes).await);
            });
            Ok(answered.await.unwrap_or_else(|_| {
                refusal(&Status::new(
                    503,
                    "ServiceUnavailable",
                    "the server is shutting down",
                ))
            }))
        }
        .boxed()
    }
}

/// Answers a request; its panic is that request's failure.
async fn answer(
    server: &Arc<ServerState>,
    user: &Identity,
    parts: http::request::Parts,
    bytes: Bytes,
) -> ApiResponse {
    std::panic::AssertUnwindSafe(dispatch::answer(server, user, parts, bytes))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| -> ApiResponse {
            tracing::error!("a request handler panicked");
            refusal(&Status::internal("the request handler panicked"))
        })
}

/// Reads a body up to the limit.
async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body,
    B::Error: std::fmt::Display,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Status::too_large(BODY_BYTES_MAX));
    }
    match http_body_util::Limited::new(SizedBody(Box::pin(body)), BODY_BYTES_MAX)
        .collect()
        .await
    {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(BODY_BYTES_MAX))
        }
        Err(error) => Err(Status::bad_request(format!(
            "reading the request body: {error}"
        ))),
    }
}

/// Turns a body's own error into text, so that [`http_body_util::Limited`] takes any.
struct SizedBody<B>(std::pin::Pin<Box<B>>);

impl<B> http_body::Body for SizedBody<B>
where
    B: http_body::Body,
    B::Error: std::fmt::Display,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.0
            .as_mut()
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(|error| error.to_string().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}
