//! The server's state, its options, and the tower service in front of it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kinglet_process::clock::Clock;
use kinglet_store::Store;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::auth::tokens::{Signer, StaticToken};
use crate::body::{Answer, Body, refusal};
use crate::crd;
use crate::dispatch;
use crate::identity::{Identity, Who};
use crate::kinds::Registry;
use crate::logs::PodLogs;
use crate::status::Status;

/// Largest request body, as the Kubernetes API server has it.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Time for a request's body to arrive; at this limit 3 MiB need 50 kB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Fills a buffer with random bytes.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Facts about a write of our own controllers, for deciding whether it waits for the disk.
#[derive(Debug)]
pub struct WriteFacts<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// `status` or empty.
    pub subresource: &'a str,
    /// Nothing was there before.
    pub create: bool,
    /// What is written.
    pub object: &'a Value,
    /// What was there.
    pub old: Option<&'a Value>,
}

/// Decides whether an in-process write is synced.
pub type SyncedWrites = Arc<dyn Fn(&WriteFacts<'_>) -> bool + Send + Sync>;

/// The OpenAPI v3 schema of a built-in kind by group, version and kind: its name and all definitions it reaches (see [`crate::openapi::Builtin`]).
pub type SchemaSource =
    Arc<dyn Fn(&str, &str, &str) -> Option<(String, serde_json::Map<String, Value>)> + Send + Sync>;

/// What the root hands in.
#[derive(Clone)]
pub struct Options {
    /// Our own version, shown as `v1.34.4+kinglet-VERSION`.
    pub version: String,
    /// Where time is read.
    pub clock: Clock,
    /// Where chance comes from (uids, generated names, cluster IPs).
    pub entropy: Entropy,
    /// Defaults and rules for custom resources.
    pub admission: Option<Arc<dyn Admission>>,
    /// Container logs.
    pub logs: Option<Arc<dyn PodLogs>>,
    /// Which in-process writes wait for the disk. None do by default.
    pub synced: SyncedWrites,
    /// Resources besides Events and Leases that need not reach the disk: (group, plural).
    pub fleeting: Vec<(String, String)>,
    /// Bearer tokens that are simply known.
    pub tokens: Vec<StaticToken>,
    /// Signs and checks service-account tokens; without one they are refused.
    pub signer: Option<Arc<Signer>>,
    /// Schemas of built-in kinds, for `kubectl explain` and validation.
    pub schemas: Option<SchemaSource>,
    /// Network of cluster IPs: the first two bytes of a /16.
    pub service_network: [u8; 2],
    /// What `/readyz` asks: names of checks that fail at the moment.
    pub ready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Extra answer for `/metrics`, if any.
    pub metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: Clock::system(),
            entropy: Arc::new(|buffer| {
                rustls::crypto::aws_lc_rs::default_provider()
                    .secure_random
                    .fill(buffer)
                    .expect("the system's random source works");
            }),
            admission: None,
            logs: None,
            synced: Arc::new(|_| false),
            fleeting: Vec::new(),
            tokens: Vec::new(),
            signer: None,
            schemas: None,
            service_network: [10, 96],
            ready: Arc::new(Vec::new),
            metrics: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The Kubernetes API over a [`Store`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiServer {
    pub(crate) core: Arc<Core>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) registry: ArcSwap<Registry>,
    pub(crate) options: Options,
    /// Cluster IPs in use.
    pub(crate) addresses: Mutex<HashSet<[u8; 4]>>,
    /// Cancelled when the listener stops: streams to outside end, so that their connections can.
    pub(crate) closing: CancellationToken,
    /// Orders what must be decided and stored in one piece: quota, CRDs.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// OpenAPI documents and discovery answers, made once per registry.
    pub(crate) documents: Mutex<std::collections::HashMap<String, Bytes>>,
}

impl ApiServer {
    /// Serves what is in the store: built-in kinds and the CRDs found there.
    pub fn new(store: Store, options: Options) -> Self {
        let core = Core {
            registry: ArcSwap::from_pointee(Registry::new(crd::stored(&store).iter())),
            addresses: Mutex::new(crate::builtin::service::used_addresses(&store)),
            closing: CancellationToken::new(),
            turn: tokio::sync::Mutex::new(()),
            documents: Mutex::default(),
            store,
            options,
        };
        Self {
            core: Arc::new(core),
        }
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
            core: Arc::clone(&self.core),
            who: Arc::new(identity),
        }
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.core.store
    }
}

impl Core {
    /// The time as Kubernetes writes it, to the second.
    pub(crate) fn now(&self) -> String {
        self.options
            .clock
            .now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    }

    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> String {
        let mut b = [0u8; 16];
        (self.options.entropy)(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// Five letters as `generateName` appends them.
    pub(crate) fn suffix(&self) -> String {
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = [0u8; 5];
        (self.options.entropy)(&mut random);
        random
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect()
    }

    /// Serves with the CRDs now in the store.
    pub(crate) fn reload(&self) {
        self.registry
            .store(Arc::new(Registry::new(crd::stored(&self.store).iter())));
        self.documents.lock().clear();
    }
}

/// The server as one identity sees it: a `tower::Service`, for `kube::Client::new` or a connection.
#[derive(Clone, Debug)]
pub struct ApiService {
    pub(crate) core: Arc<Core>,
    pub(crate) who: Who,
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
        let (core, who) = (Arc::clone(&self.core), Arc::clone(&self.who));
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
            // One request's panic is that request's failure.
            let answer = std::panic::AssertUnwindSafe(dispatch::answer(&core, &who, parts, bytes))
                .catch_unwind()
                .await;
            Ok(answer.unwrap_or_else(|_| -> Answer {
                tracing::error!("a request handler panicked");
                refusal(&Status::internal("the request handler panicked"))
            }))
        }
        .boxed()
    }
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
