//! Ready pods to the gateway: the last hop of a cold start.
//!
//! Sent from the cache's own event: no queue, no rate limit, no task switch of ours between "the pod is ready" and
//! the gateway's channel. Guarantees: per Revision the last state sent is the last state seen; nothing is sent
//! twice. When the channel is full, the key is remembered and its then latest state follows as soon as there is room.
//! What there was at a start is owed as well and follows as backlog: the gateway holds requests for a backend that it was
//! not told about, and the pod that one of them waits for is told at once.

mod outbox;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_api::keys;
use kinglet_api::networking as api;
use kinglet_api::serving::Revision;
use kinglet_decide::feed::{Endpoint, Key, Protocol, RevisionBackend, ServiceBackend, Update};
use kinglet_reconcile::{
    Cache, Change, Context, DynamicObject, Head, Object, is_deleting, key_of, label,
};
use tokio::sync::{mpsc, watch};

use self::outbox::{Outbox, Sent, Subject};
use super::pods;

/// `config-defaults` `revision-timeout-seconds`: what a Revision without a timeout of its own would have got.
const DEFAULT_TIMEOUT_S: i64 = 300;
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

struct Feed {
    revisions: Cache<Revision>,
    pods: Cache<Pod>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    /// Gateways in other processes reach a Revision by its public Service; those of this process know its pods.
    by_public_service: bool,
    /// Whether no Pod of an earlier life is left that looks ready; until then none gets requests.
    pods_are_current: watch::Receiver<bool>,
    outbox: Outbox,
}

/// The feed of backends.
pub(crate) struct Backends {
    feed: Arc<Feed>,
    told: watch::Receiver<bool>,
    updates: mpsc::WeakSender<Update>,
}

/// How often [`Backends::told`] looks whether the gateway has taken what was sent.
const TAKEN_CHECK: Duration = Duration::from_millis(2);

impl Backends {
    /// Tells what is owed about a Revision now: a request waits for it.
    pub(crate) fn tell_asked(&self, revision: &Key) {
        if self.feed.revisions.is_synced() && self.feed.pods.is_synced() {
            let subject = Subject::Revision(revision.clone());
            self.feed
                .outbox
                .tell_owed(subject, |subject| self.feed.present(subject));
        }
    }

    /// Waits until the gateway has taken what there was at the start.
    pub(crate) fn told(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut told, updates) = (self.told.clone(), self.updates.clone());
        async move {
            // Who would have told is gone with the gateway.
            let _ = told.wait_for(|told| *told).await;
            while updates
                .upgrade()
                .is_some_and(|updates| updates.capacity() < updates.max_capacity())
            {
                tokio::time::sleep(TAKEN_CHECK).await;
            }
        }
    }
}

/// Starts feeding the gateway, until the context's tasks stop.
pub(crate) fn start(
    context: &Context,
    updates: mpsc::Sender<Update>,
    by_public_service: bool,
    pods_are_current: watch::Receiver<bool>,
) -> Backends {
    let weak = updates.downgrade();
    let feed = Arc::new(Feed {
        revisions: context.cache(),
        pods: context.cache(),
        services: context.cache(),
        slices: context.cache(),
        by_public_service,
        pods_are_current: pods_are_current.clone(),
        outbox: Outbox::new(updates),
    });
    let (teller, told) = watch::channel(false);
    let backends = Backends {
        feed: Arc::clone(&feed),
        told,
        updates: weak,
    };
    let named = |head: &Head, name: &str| Key::new(head.key.namespace.clone(), name);
    feed.follow(&feed.pods, move |head| {
        Some(Subject::Revision(named(head, head.label(keys::REVISION)?)))
    });
    feed.follow(&feed.revisions, |head| {
        Some(Subject::Revision(head.key.clone()))
    });
    feed.follow(&feed.services, |head| {
        Some(Subject::Service(head.key.clone()))
    });
    feed.follow(&feed.slices, move |head| {
        Some(Subject::Service(named(head, head.label(SLICE_SERVICE)?)))
    });
    let backlog = context.backlog().clone();
    context
        .tasks()
        .component_cancellable("backend-feed", async move {
            feed.wait_synced().await;
            let mut pods_are_current = pods_are_current;
            // Who would have said so is gone with the process.
            let _ = pods_are_current.wait_for(|current| *current).await;
            feed.owe_pods();
            let present = |subject: &Subject| feed.present(subject);
            feed.outbox.settle(Some(&backlog), present).await;
            teller.send_replace(true);
            feed.outbox.keep_settling(present).await;
        });
    backends
}

impl Feed {
    /// Tells about the subject of every object of a kind that changes, and owes those that were there.
    fn follow<K: Object>(
        self: &Arc<Self>,
        cache: &Cache<K>,
        subject: impl Fn(&Head) -> Option<Subject> + Send + Sync + 'static,
    ) {
        let (feed, observed) = (Arc::clone(self), cache.clone());
        cache.observe_heads(move |change: &Change<DynamicObject>| {
            let subjects = change.states().filter_map(|state| subject(state.head()));
            if observed.is_synced() {
                subjects.for_each(|subject| feed.tell(subject));
            } else {
                subjects.for_each(|subject| feed.outbox.owe(subject));
            }
        });
    }

    /// Owes every Revision that has pods.
    fn owe_pods(&self) {
        for pod in self.pods.all() {
            if let Some(revision) = label(&*pod, keys::REVISION) {
                let key = Key::new(key_of(&*pod).namespace, revision);
                self.outbox.owe(Subject::Revision(key));
            }
        }
    }

    async fn wait_synced(&self) {
        self.revisions.wait_synced().await;
        self.pods.wait_synced().await;
        self.services.wait_synced().await;
        self.slices.wait_synced().await;
    }

    fn tell(&self, subject: Subject) {
        self.outbox.tell(subject, |subject| self.present(subject));
    }

    fn present(&self, subject: &Subject) -> Option<Sent> {
        match subject {
            Subject::Revision(key) => {
                let revision = self.revisions.find(key)?;
                let mut pods = pods::of_revision(&self.pods, &key.namespace, &key.name);
                if !*self.pods_are_current.borrow() {
                    pods.clear();
                }
                Some(Sent::Revision(Arc::new(revision_backend(
                    &revision,
                    pods.iter().map(|pod| &**pod),
                ))))
            }
            Subject::Service(key) => {
                let service = self.services.find(key)?;
                if let Some(target) = external_name(&service) {
                    return Some(Sent::Service(Arc::new(ServiceBackend {
                        external_name: Some(target.into()),
                        ..ServiceBackend::default()
                    })));
                }
                let public = self.by_public_service && is_public(&service);
                if !public && !is_ordinary(&service) {
                    return None;
                }
                let slices = self
                    .slices
                    .select(&key.namespace, [(SLICE_SERVICE, &*key.name)]);
                Some(Sent::Service(Arc::new(service_backend(&service, &slices))))
            }
        }
    }
}

/// What the gateway must know about a Revision, given its pods.
fn revision_backend<'a>(
    revision: &Revision,
    pods: impl Iterator<Item = &'a Pod>,
) -> RevisionBackend {
    let spec = &revision.spec;
    let uid = revision.metadata.uid.as_deref();
    let of_this_life = |pod: &&Pod| {
        uid.is_none() || label(*pod, keys::REVISION_UID).is_none_or(|other| uid == Some(other))
    };
    let mut endpoints: Vec<Endpoint> = pods
        .filter(of_this_life)
        .filter(|pod| pods::takes_requests(pod))
        .filter_map(|pod| {
            let port = pods::user_port(pod).unwrap_or_else(|| spec.user_port());
            Some(Endpoint {
                pod: pod.metadata.name.as_deref()?.into(),
                address: (pods::address(pod)?, port).into(),
            })
        })
        .collect();
    endpoints.sort_by(|left, right| left.pod.cmp(&right.pod));
    RevisionBackend {
        revision: key_of(revision),
        configuration: revision
            .label(keys::CONFIGURATION)
            .unwrap_or_else(|| revision.name())
            .into(),
        container_concurrency: spec
            .container_concurrency
            .and_then(|limit| u32::try_from(limit).ok())
            .unwrap_or(0),
        timeout: seconds(
            spec.timeout_seconds
                .filter(|given| *given > 0)
                .unwrap_or(DEFAULT_TIMEOUT_S),
        ),
        response_start_timeout: seconds(spec.response_start_timeout_seconds.unwrap_or(0)),
        idle_timeout: seconds(spec.idle_timeout_seconds.unwrap_or(0)),
        protocol: match spec.protocol() {
            api::Protocol::Http1 => Protocol::Http1,
            api::Protocol::H2c => Protocol::H2c,
        },
        endpoints,
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// A Service with pods that is not one of a Revision's two.
fn is_ordinary(service: &Service) -> bool {
    let selects = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
        .is_some_and(|pairs| !pairs.is_empty());
    selects && !is_deleting(service) && label(service, keys::SERVERLESS_SERVICE).is_none()
}

/// The Service of a Revision whose endpoints are activators or queue-proxies.
fn is_public(service: &Service) -> bool {
    let is_public = label(service, keys::SERVICE_TYPE) == Some("Public");
    is_public && !is_deleting(service)
}

/// The name that a Service of type ExternalName stands for. A Route's own placeholders are of that type, too: their
/// hosts are in the route table.
fn external_name(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    let target = spec.external_name.as_deref().filter(|_| external)?;
    let own = is_deleting(service) || label(service, keys::ROUTE).is_some();
    (!own).then(|| target.to_ascii_lowercase())
}

/// Ports of an ordinary Service and where they lead.
fn service_backend(service: &Service, slices: &[Arc<EndpointSlice>]) -> ServiceBackend {
    let declared = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let mut ports = Vec::new();
    let mut h2c_ports = Vec::new();
    for declared in declared {
        let Ok(number) = u16::try_from(declared.port) else {
            continue;
        };
        let name = declared.name.as_deref().unwrap_or("");
        if matches!(name, "http2" | "h2c")
            || declared.app_protocol.as_deref() == Some("kubernetes.io/h2c")
        {
            h2c_ports.push(number);
        }
        let mut addresses = Vec::new();
        for slice in slices {
            let port = slice
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref().unwrap_or("") == name);
            let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else {
                continue;
            };
            let ready = slice.endpoints.iter().filter(|endpoint| {
                endpoint
                    .conditions
                    .as_ref()
                    .and_then(|conditions| conditions.ready)
                    .unwrap_or(true)
            });
            let ips = ready
                .flat_map(|endpoint| &endpoint.addresses)
                .filter_map(|ip| ip.parse().ok());
            addresses.extend(ips.map(|ip: IpAddr| SocketAddr::from((ip, port))));
        }
        addresses.sort_unstable();
        addresses.dedup();
        ports.push((number, addresses));
    }
    ServiceBackend {
        ports,
        h2c_ports,
        external_name: None,
    }
}

#[cfg(test)]
#[path = "backends/tests.rs"]
mod tests;
