//! Services of this process behind Kubernetes Service names, and calls into the gateway without a socket.
//!
//! Flow: a component registers itself ([`crate::Handle::local_service`]) -> a request on the cluster-local listener for
//! `SERVICE.NAMESPACE[.svc[.DOMAIN]]`, or for a Service of type ExternalName that leads there, is handed to it. The other
//! way, [`crate::Handle::caller`] takes a request as if a client of this machine had sent it.
//! Always: requests from outside reach no local service; what is registered is bounded in calls, and its panic is a 500.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use kinglet_decide::call::{Answer, BoxError, CallBody, HttpService};
use kinglet_decide::feed::Key;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Sleep;

use crate::gateway;
use crate::gateway::by_name::service_name;
use crate::headers;
use crate::listen::{ActiveRequest, Listener, Peer};
use crate::plane::Plane;
use crate::request_body::BodySource;
use crate::response::{self, ResponseBody};
use crate::response_body::FLUSH_PAUSE;

/// Requests at once to all local services, and as many from callers: what may wait for one Revision.
const CALLS_MAX: usize = 10_000;
/// Services of type ExternalName that may lead to each other before one leads here: what resolvers follow of CNAMEs.
const ALIASES_MAX: usize = 8;

/// What is registered.
pub(crate) struct Locals {
    services: ArcSwap<HashMap<Key, Arc<LocalEntry>>>,
    /// Services of type ExternalName. Bounded by the number of objects.
    aliases: RwLock<HashMap<Key, Arc<str>>>,
    pub(crate) calls: Arc<Semaphore>,
    called: Arc<Semaphore>,
}

/// One local service.
pub(crate) struct LocalEntry {
    pub(crate) key: Key,
    pub(crate) handler: Arc<dyn HttpService>,
}

impl Default for Locals {
    fn default() -> Self {
        Self {
            services: ArcSwap::default(),
            aliases: RwLock::default(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            called: Arc::new(Semaphore::new(CALLS_MAX)),
        }
    }
}

impl Locals {
    pub(crate) fn by_key(&self, key: &Key) -> Option<Arc<LocalEntry>> {
        let services = self.services.load();
        match services.is_empty() {
            true => None,
            false => services.get(key).cloned(),
        }
    }

    /// The local service that `host` names, itself or by ExternalName.
    pub(crate) fn by_host(&self, host: &str, plane: &Plane) -> Option<Arc<LocalEntry>> {
        if self.services.load().is_empty() {
            return None;
        }
        let domain = &plane.options().cluster_domain;
        let (name, namespace) = service_name(host, domain)?;
        let mut key = Key::new(namespace, name);
        for _ in 0..=ALIASES_MAX {
            if let Some(local) = self.by_key(&key) {
                return Some(local);
            }
            let target = self.aliases.read().get(&key).cloned()?;
            let (name, namespace) = service_name(&target, domain)?;
            key = Key::new(namespace, name);
        }
        None
    }

    pub(crate) fn set_alias(&self, key: &Key, target: Option<&Arc<str>>) {
        let mut aliases = self.aliases.write();
        match target {
            Some(target) => drop(aliases.insert(key.clone(), target.clone())),
            None => drop(aliases.remove(key)),
        }
    }

    pub(crate) fn register(&self, entry: &Arc<LocalEntry>) {
        self.services.rcu(|services| {
            let mut services = HashMap::clone(services);
            services.insert(entry.key.clone(), entry.clone());
            services
        });
    }

    fn remove(&self, entry: &Arc<LocalEntry>) {
        self.services.rcu(|services| {
            let mut services = HashMap::clone(services);
            // Another may have taken the name meanwhile.
            if services
                .get(&entry.key)
                .is_some_and(|found| Arc::ptr_eq(found, entry))
            {
                services.remove(&entry.key);
            }
            services
        });
    }
}

/// A registration; the name is free again when this is dropped. Requests under way end by themselves.
pub struct LocalService {
    plane: Arc<Plane>,
    entry: Arc<LocalEntry>,
}

impl LocalService {
    pub(crate) fn new(plane: Arc<Plane>, key: Key, handler: Arc<dyn HttpService>) -> Self {
        let entry = Arc::new(LocalEntry { key, handler });
        plane.locals.register(&entry);
        Self { plane, entry }
    }
}

impl Drop for LocalService {
    fn drop(&mut self) {
        self.plane.locals.remove(&self.entry);
    }
}

/// A local service's response on its way to the client.
pub(crate) struct LocalBody {
    body: CallBody,
    key: Key,
    finished: bool,
    /// It broke off: told once the client has what came before.
    failure: Option<(BoxError, Pin<Box<Sleep>>)>,
    /// Held to the response's end.
    _held: (OwnedSemaphorePermit, ActiveRequest),
}

impl LocalBody {
    pub(crate) fn new(
        body: CallBody,
        key: Key,
        permit: OwnedSemaphorePermit,
        active: ActiveRequest,
    ) -> Self {
        Self {
            body,
            key,
            finished: false,
            failure: None,
            _held: (permit, active),
        }
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some((_, pause)) = &mut self.failure {
            std::task::ready!(pause.as_mut().poll(cx));
            self.finished = true;
            return Poll::Ready(self.failure.take().map(|(error, _)| Err(error)));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let body = &mut self.body;
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| body.as_mut().poll_frame(cx)));
        let error = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Err(error)))) => error,
            Ok(Poll::Ready(frame)) => {
                self.finished = frame.is_none();
                return Poll::Ready(frame);
            }
            Err(_panic) => format!("{} panicked", self.key).into(),
        };
        self.failure = Some((error, Box::pin(tokio::time::sleep(FLUSH_PAUSE))));
        self.poll_next(cx)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished || (self.failure.is_none() && self.body.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Calls into the gateway.
pub(crate) struct Caller {
    plane: Arc<Plane>,
    peer: Arc<Peer>,
}

impl Caller {
    pub(crate) fn new(plane: Arc<Plane>, kind: Listener) -> Self {
        Self {
            plane,
            peer: Arc::new(Peer::caller(kind)),
        }
    }
}

impl HttpService for Caller {
    fn call(&self, mut request: Request<CallBody>) -> Answer<'_> {
        Box::pin(async move {
            let stopping = self.plane.connections.token().is_cancelled();
            let permit = self.plane.locals.called.clone().try_acquire_owned();
            let Some(permit) = permit.ok().filter(|_| !stopping) else {
                let refused = match stopping {
                    true => response::ProxyError::Stopping,
                    false => response::ProxyError::QueueFull,
                };
                return refused.response(false).map(|body| called(body, None));
            };
            headers::from_caller(request.headers_mut());
            // A stop waits for this one as for a connection.
            let (held, ended) = oneshot::channel::<()>();
            self.plane
                .connections
                .spawn("call into the gateway", async move {
                    let _ = ended.await;
                });
            let active = self.peer.active_request();
            let request = request.map(BodySource::Caller);
            let answer = gateway::serve(&self.plane, &self.peer, request, None, active).await;
            answer.map(|body| called(body, Some((held, permit))))
        })
    }
}

/// What a call holds until its response has been read.
type Held = (oneshot::Sender<()>, OwnedSemaphorePermit);

fn called(body: ResponseBody, held: Option<Held>) -> CallBody {
    Box::pin(CalledBody { body, _held: held })
}

struct CalledBody {
    body: ResponseBody,
    _held: Option<Held>,
}

impl Body for CalledBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
