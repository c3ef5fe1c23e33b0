//! The data plane as a component: made of options and channels, run by one loop, reached through a handle.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Method, StatusCode};
use kinglet_decide::call::HttpService;
use kinglet_decide::feed::{Key, Report, Update};
use kinglet_decide::route::RouteTable;
use kinglet_process::clock::Clock;
use kinglet_process::{Shares, Tasks};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::breaker::BreakerContext;
use crate::clusters::{Cluster, Clusters};
use crate::headers::RequestIds;
use crate::listen::{self, ConnectionRegistry, Listener};
use crate::local::{Caller, LocalService, Locals};
use crate::metrics::Measures;
use crate::options::Options;
use crate::queue::QueueState;
use crate::report;
use crate::request_log::{RequestLogEntry, RequestLogs};
use crate::role::{Health, HealthCell, Role};
use crate::routes::Routes;
use crate::tls::Certificates;
use crate::trace::{ColdStart, ColdStarts};

/// How long the 503 of requests that are cut may take to reach their clients.
const LAST_WORDS_MAX: Duration = Duration::from_millis(250);

/// How often a stop looks whether upgraded connections alone are left.
const UPGRADES_CHECK: Duration = Duration::from_millis(100);

/// What requests share.
pub(crate) struct Plane {
    pub(crate) context: Arc<BreakerContext>,
    pub(crate) clusters: Clusters,
    pub(crate) routes: ArcSwap<Routes>,
    /// Client connections and tunnels; cancelled when the data plane is to drain.
    pub(crate) connections: Tasks,
    /// Connections to containers that need a task; cancelled last.
    pub(crate) upstreams: Tasks,
    /// Draining is over: requests without a response are answered so.
    pub(crate) cut: CancellationToken,
    /// Ends what draining did not.
    pub(crate) killed: CancellationToken,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) registry: Arc<ConnectionRegistry>,
    pub(crate) request_ids: RequestIds,
    pub(crate) cold_starts: ColdStarts,
    pub(crate) request_logs: RequestLogs,
    /// For Prometheus, where anything is measured for it.
    pub(crate) measures: ArcSwapOption<Measures>,
    pub(crate) clock: Clock,
    /// What an activator says of itself.
    pub(crate) health: HealthCell,
    /// What a queue-proxy knows of its pod; of no use to the other roles.
    pub(crate) queue: QueueState,
    /// Services of this process.
    pub(crate) locals: Locals,
    /// Upgraded connections.
    pub(crate) tunnels: Arc<AtomicUsize>,
    /// Whether every backend was told about that there is: not while a control plane starts.
    backends_told: watch::Sender<bool>,
    /// What https listeners show.
    pub(crate) certificates: Certificates,
    /// TLS handshakes under way.
    pub(crate) handshakes: Shares,
}

impl Plane {
    pub(crate) fn options(&self) -> &Options {
        &self.context.options
    }

    /// Waits until nothing more is to be told about a backend that is not known, but not longer than a control plane may
    /// take to start.
    pub(crate) async fn backends_told(&self, arrived: Instant) {
        let mut told = self.backends_told.subscribe();
        let told = told.wait_for(|told| *told);
        // The sender lives in the plane that we hold.
        let _ = tokio::time::timeout_at(arrived + self.options().starting_wait, told).await;
    }

    fn apply(&self, update: Update, applied: &watch::Sender<u64>) {
        let role = self.options().role;
        match update {
            Update::Routes(table) if matches!(role, Role::Activator | Role::Queue) => {
                applied.send_replace(table.version);
            }
            Update::Rules(version, rules) => {
                let table = RouteTable::build(version, rules.to_vec());
                self.apply(Update::Routes(Arc::new(table)), applied);
            }
            Update::Revision(..) if role == Role::Gateway => {}
            Update::Service(..) if matches!(role, Role::Activator | Role::Queue) => {}
            Update::Routes(table) => {
                let version = table.version;
                let routes = Routes::compile(table, &self.clusters);
                self.clusters.retain(&routes.keys().collect());
                // Before the routes: what a route redirects to https is understood there.
                self.certificates.replace(&routes.table);
                self.routes.store(Arc::new(routes));
                applied.send_replace(version);
            }
            Update::Revision(key, backend) => {
                self.clusters.set_revision(&key, backend.as_deref());
                if role == Role::Queue {
                    self.queue.set_user_container(backend.map(|backend| {
                        let counted = self.clusters.of(&key);
                        (counted, Cluster::uncounted(&backend, &self.context))
                    }));
                }
            }
            Update::Service(key, backend) => {
                let alias = backend.as_ref().and_then(|one| one.external_name.as_ref());
                self.locals.set_alias(&key, alias);
                let backend = backend.as_deref().filter(|_| alias.is_none());
                self.clusters.set_service(&key, backend);
            }
        }
    }
}

/// The data plane before it runs.
pub struct Dataplane {
    plane: Arc<Plane>,
    updates: mpsc::Receiver<Update>,
    applied: watch::Sender<u64>,
}

/// Reaches a running data plane. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    plane: Arc<Plane>,
}

fn gateway_status(plane: &Plane, method: &Method, path: &str) -> admin::Answer {
    match (method, path) {
        (&Method::GET, "/ready") => match plane.health.get() {
            Health::Ready => admin::text(StatusCode::OK, "LIVE\n"),
            Health::NotConnected => {
                admin::text(StatusCode::SERVICE_UNAVAILABLE, "PRE_INITIALIZING\n")
            }
            Health::Stopping => admin::text(StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n"),
        },
        (&Method::POST, "/drain_listeners") => {
            plane.health.set(Health::Stopping);
            plane.connections.cancel();
            admin::text(StatusCode::OK, "OK\n")
        }
        (_, "/ready" | "/drain_listeners") => {
            admin::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
        }
        _ => admin::text(StatusCode::NOT_FOUND, "Not Found\n"),
    }
}

impl Dataplane {
    /// A data plane fed by `updates`. It reports to `reports` and puts the version of the route table in force
    /// into `applied`.
    pub fn new(
        options: Options,
        updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
        applied: watch::Sender<u64>,
        clock: Clock,
    ) -> (Self, Handle) {
        let permits = Arc::new(Semaphore::new(
            options.connections_max.min(Semaphore::MAX_PERMITS),
        ));
        let handshakes = Shares::new(options.handshakes_max);
        let cold_starts = ColdStarts::new(options.cold_starts_kept);
        let (connections, upstreams) = (options.owner.beside(), options.owner.beside());
        let context = Arc::new(BreakerContext::new(options, reports));
        let clusters = Clusters::new(context.clone());
        let routes = ArcSwap::from_pointee(Routes::compile(Arc::default(), &clusters));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a seed is any 64 bits"
        )]
        let seed = clock.now().as_nanosecond() as u64;
        let plane = Arc::new(Plane {
            context,
            clusters,
            routes,
            connections,
            upstreams,
            cut: CancellationToken::new(),
            killed: CancellationToken::new(),
            permits,
            registry: Arc::default(),
            request_ids: RequestIds::new(seed),
            cold_starts,
            request_logs: RequestLogs::default(),
            measures: ArcSwapOption::empty(),
            clock,
            health: HealthCell::default(),
            queue: QueueState::default(),
            locals: Locals::default(),
            tunnels: Arc::default(),
            backends_told: watch::Sender::new(true),
            certificates: Certificates::default(),
            handshakes,
        });
        (
            Self {
                plane: plane.clone(),
                updates,
                applied,
            },
            Handle { plane },
        )
    }

    /// Applies updates and reports statistics until `stop`. Requests are served meanwhile by the listeners of
    /// [`Handle::serve`], and go on being served with what is known when this ends.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            plane,
            mut updates,
            applied,
        } = self;
        let updating = async {
            while let Some(update) = updates.recv().await {
                plane.apply(update, &applied);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = updating => {}
            () = report::run(&plane) => {}
        }
    }
}

/// What was still under way when a stop ran out of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Requests and upgraded connections, by backend.
    pub requests: BTreeMap<Key, u32>,
}

impl Cut {
    /// Everything had ended by itself.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl Handle {
    pub(crate) fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Says whether every backend that there is was told about. Until then requests for one that is not known wait: a control
    /// plane that starts tells routes first and backends behind.
    pub fn set_backends_told(&self, told: bool) {
        self.plane.backends_told.send_replace(told);
    }

    /// Accepts connections on `listener` until [`Handle::shutdown`]. HTTP/1.1 and HTTP/2 without TLS.
    pub fn serve(&self, listener: TcpListener, kind: Listener) {
        let name = match kind {
            Listener::External => "http-listener",
            Listener::ClusterLocal => "cluster-local-listener",
        };
        let accepting = listen::accept(self.plane.clone(), listener, kind, None);
        self.plane.connections.component(name, accepting);
        self.watch();
    }

    /// Idle connections and stopping are watched from the first listener on.
    fn watch(&self) {
        if self.plane.registry.needs_watch() {
            self.plane
                .upstreams
                .component("connection-watch", listen::watch(self.plane.clone()));
        }
    }

    /// The same over TLS, with the certificates that come with the routes.
    pub fn serve_tls(&self, listener: TcpListener, kind: Listener) -> Result<(), rustls::Error> {
        let acceptor = TlsAcceptor::from(self.plane.certificates.server_config(kind.visibility())?);
        let accepting = listen::accept(self.plane.clone(), listener, kind, Some(acceptor));
        self.plane
            .connections
            .component("https-listener", accepting);
        self.watch();
        Ok(())
    }

    /// Gives no new request to the pod at `ip` from now on, and resolves when the last one there has ended: responses,
    /// streams and upgraded connections, also of a pod that has left its Service's endpoints or whose Service is deleted.
    ///
    /// This is the pod's preStop (spec/serving.md 6.3.6); the caller bounds it with the pod's grace period. The first
    /// part holds whether or not the future is polled.
    pub fn drain_pod(&self, ip: IpAddr) -> impl Future<Output = ()> + Send + 'static {
        let containers = self.plane.clusters.drain_address(ip);
        async move {
            for container in containers {
                container.drained().await;
            }
        }
    }

    /// Requests in flight, waiting ones included.
    pub fn in_flight(&self) -> usize {
        self.plane
            .clusters
            .breakers()
            .iter()
            .map(|breaker| breaker.in_flight() as usize)
            .sum()
    }

    /// Sends an entry for each request that a pod has served to `entries` from now on, or stops doing so; with `probes`
    /// also for probes.
    pub fn log_requests(&self, entries: Option<mpsc::Sender<RequestLogEntry>>, probes: bool) {
        self.plane.request_logs.send_to(entries, probes);
    }

    /// The last cold starts, oldest first.
    pub fn cold_starts(&self) -> Vec<ColdStart> {
        self.plane.cold_starts.all()
    }

    /// Puts `handler` behind the name of the Kubernetes Service `service`, for requests on cluster-local listeners, until
    /// the registration is dropped. A later one of the same name takes its place.
    pub fn local_service(&self, service: Key, handler: Arc<dyn HttpService>) -> LocalService {
        LocalService::new(self.plane.clone(), service, handler)
    }

    /// Takes requests as a listener of this kind does, without a socket: same routes, limits and statistics. A stop waits
    /// for them as for connections.
    pub fn caller(&self, from: Listener) -> Arc<dyn HttpService> {
        Arc::new(Caller::new(self.plane.clone(), from))
    }

    /// What an activator answers the kubelet from now on.
    pub fn set_health(&self, health: Health) {
        self.plane.health.set(health);
    }

    /// Port 9000 of a gateway, as Envoy has it: `GET /ready`, `POST /drain_listeners`.
    pub fn serve_gateway_status(&self, listener: TcpListener) {
        let plane = self.plane.clone();
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let plane = plane.clone();
            async move { gateway_status(&plane, request.method(), request.uri().path()) }
        };
        admin::serve(
            &self.plane.upstreams,
            "gateway status listener",
            listener,
            answer,
        );
    }

    /// The same as [`Handle::shutdown`], but upgraded connections are cut when they alone are left for `upgrades`.
    pub async fn shutdown_with_upgrades(&self, grace: Duration, upgrades: Duration) -> Cut {
        let drained = tokio::select! {
            drained = self.plane.connections.shutdown(grace) => drained,
            () = self.only_upgrades_for(upgrades) => false,
        };
        self.end(drained).await
    }

    async fn only_upgrades_for(&self, most: Duration) {
        let mut since = None;
        loop {
            if self.in_flight() > self.plane.tunnels.load(Ordering::Acquire) {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= most {
                return;
            }
            tokio::time::sleep(UPGRADES_CHECK).await;
        }
    }

    /// Stops accepting, lets what is in flight end, and returns as soon as it has: idle connections are closed at
    /// once, there is no quiet time. Requests that wait for a container to start are answered with 503 at once. After
    /// `grace` the rest is cut, with 503 where no response has begun; the answer says what that was.
    pub async fn shutdown(&self, grace: Duration) -> Cut {
        let drained = self.plane.connections.shutdown(grace).await;
        self.end(drained).await
    }

    async fn end(&self, drained: bool) -> Cut {
        let mut cut = Cut::default();
        if !drained {
            cut = self.under_way();
            self.plane.cut.cancel();
            self.plane.connections.shutdown(LAST_WORDS_MAX).await;
        }
        self.plane.killed.cancel();
        self.plane.upstreams.cancel();
        cut
    }

    fn under_way(&self) -> Cut {
        let mut requests = BTreeMap::new();
        for breaker in self.plane.clusters.breakers() {
            let in_flight = breaker.in_flight();
            if in_flight > 0 {
                *requests.entry(breaker.key().clone()).or_default() += in_flight;
            }
        }
        Cut { requests }
    }
}
