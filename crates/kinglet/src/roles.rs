//! `kinglet gateway`, `activator`, `queue`: one component of the data plane in a process of its own.
//!
//! Flow: flags and environment -> listeners -> feed -> [`Dataplane`] by its role, until SIGTERM.
//! Always: no node, no store, no API client; a first signal drains, a second one ends the process at once with status 1
//! (spec/cluster.md 1.12); SIGHUP reads the feed again.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_cli::{ActivatorArgs, Command, ComponentArgs, GatewayArgs, MetricsProtocol, QueueArgs};
use kinglet_dataplane::activator::Backends;
use kinglet_dataplane::feed::{self, FeedFile, FeedSocket, Snapshot};
use kinglet_dataplane::queue::{self, QueueConfig, QueueProxy};
use kinglet_dataplane::stats::{StatClient, StatClientOptions};
use kinglet_dataplane::{Cut, Dataplane, Handle, Health, Listener, Options, Role};
use kinglet_dataplane::{MetricsOptions, StatConnection};
use kinglet_decide::feed::{Report, Source, Update};
use kinglet_process::{Clock, Supervisor, Tasks, logging};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::standalone::report_cut;
use crate::{listeners, request_logs};

/// Updates on their way to the data plane; the feed waits while it is full.
const UPDATES_QUEUED: usize = 1024;
/// Reports on their way out: a second's worth of a thousand Revisions.
const REPORTS_QUEUED: usize = 1024;
/// How long upgraded connections may go on once they alone are left.
const UPGRADES_MAX: Duration = Duration::from_secs(60);
/// Of a component's own tasks.
const TASKS_STOP_MAX: Duration = Duration::from_secs(1);
/// The two ports that a pod of a Revision may be reached by; a queue-proxy listens on both.
const SERVING_PORTS: [u16; 2] = [8012, 8013];
/// Stack of a runtime's thread: requests are futures, which need little of it.
const STACK_BYTES: usize = 512 * 1024;

/// Runs a component, when it is one that was asked for.
pub(crate) fn run(command: &Command) -> Option<anyhow::Result<()>> {
    match command {
        Command::Gateway(args) => Some(on_threads(gateway(args))),
        Command::Activator(args) => Some(on_threads(activator(args))),
        Command::Queue(args) => Some(on_one_thread(queue(args))),
        _ => None,
    }
}

/// A gateway or an activator is the machine's: it may use all of it.
fn on_threads(component: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build();
    runtime.context("starting the runtime")?.block_on(component)
}

/// A queue-proxy is one pod's: one thread, and little memory.
fn on_one_thread(component: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("starting the runtime")?.block_on(component)
}

/// What every component has.
struct Component {
    tasks: Tasks,
    supervisor: Supervisor,
    handle: Handle,
    updates: mpsc::Sender<Update>,
    reports: mpsc::Receiver<Report>,
    applied: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Component {
    fn new(options: Options) -> anyhow::Result<Self> {
        let supervisor = Supervisor::new();
        let tasks = Tasks::new().supervised_by(&supervisor);
        let stop = CancellationToken::new();
        watch_signals(&tasks, &stop)?;
        let (updates, update_queue) = mpsc::channel(UPDATES_QUEUED);
        let (report_queue, reports) = mpsc::channel(REPORTS_QUEUED);
        let (applied_now, applied) = watch::channel(0);
        let (dataplane, handle) = Dataplane::new(
            Options {
                owner: tasks.clone(),
                ..options
            },
            update_queue,
            report_queue,
            applied_now,
            Clock::system(),
        );
        tasks.component("data-plane", dataplane.run(tasks.token()));
        #[cfg(debug_assertions)]
        panic_on_signal(&tasks, &supervisor)?;
        Ok(Self {
            tasks,
            supervisor,
            handle,
            updates,
            reports,
            applied,
            stop,
        })
    }

    /// Follows the feed: over a socket, or of a file that is read again at each SIGHUP.
    async fn follow_feed(&self, path: &Path) -> anyhow::Result<watch::Receiver<Arc<Snapshot>>> {
        use std::os::unix::fs::FileTypeExt as _;
        if std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            return self.follow_feed_socket(path).await;
        }
        let file = FeedFile::new(path);
        let (snapshots, receiver) = watch::channel(Arc::new(file.read(1)?));
        let hangups = signal(SignalKind::hangup()).context("watching for SIGHUP")?;
        self.tasks
            .component_cancellable("feed", read_again(file, hangups, snapshots));
        Ok(receiver)
    }

    /// What the control plane tells over its socket, once it has told everything.
    async fn follow_feed_socket(
        &self,
        path: &Path,
    ) -> anyhow::Result<watch::Receiver<Arc<Snapshot>>> {
        // Nothing is to be read again; by default the signal would end the process.
        let mut hangups = signal(SignalKind::hangup()).context("watching for SIGHUP")?;
        self.tasks.spawn_cancellable(
            "hangups",
            async move { while hangups.recv().await.is_some() {} },
        );
        let (snapshots, mut receiver) = watch::channel(Arc::<Snapshot>::default());
        let following = FeedSocket::new(path).run(snapshots);
        self.tasks.component_cancellable("feed", following);
        tokio::select! {
            told = receiver.wait_for(|snapshot| snapshot.version > 0) => {
                told.context("the feed ended")?;
            }
            stopped = self.stopped() => {
                stopped?;
                anyhow::bail!("stopped before the control plane told anything");
            }
        }
        Ok(receiver)
    }

    /// What the data plane reports. Where nobody takes it, it is to be dropped.
    fn take_reports(&mut self) -> mpsc::Receiver<Report> {
        let (_, closed) = mpsc::channel(1);
        std::mem::replace(&mut self.reports, closed)
    }

    /// Resolves when the component is to stop; fails with the name of a part that broke.
    async fn stopped(&self) -> anyhow::Result<()> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            fault = self.supervisor.failed() => {
                anyhow::bail!("{fault}")
            }
        }
    }

    /// Serves until it is told to stop, then accepts for `drain` more and lets what is under way end. A part that fails ends
    /// it with an error, also meanwhile.
    async fn serve_until_stopped(
        &self,
        args: &ComponentArgs,
        drain: Duration,
    ) -> anyhow::Result<()> {
        let outcome = self.stopped().await;
        self.handle.set_health(Health::Stopping);
        if outcome.is_ok() {
            linger(self, drain).await;
            let began = Instant::now();
            let stopping = self
                .handle
                .shutdown_with_upgrades(args.requests_max, UPGRADES_MAX);
            report_stop(args, &stopping.await, began.elapsed());
        }
        let fault = self.supervisor.fault();
        self.tasks.shutdown(TASKS_STOP_MAX).await;
        outcome?;
        fault.map_or(Ok(()), |fault| Err(anyhow::anyhow!("{fault}")))
    }
}

/// How the outside tests see what a panic in a component's process does.
#[cfg(debug_assertions)]
fn panic_on_signal(tasks: &Tasks, supervisor: &Supervisor) -> anyhow::Result<()> {
    let mut asked = signal(SignalKind::user_defined1()).context("watching for signals")?;
    let supervisor = supervisor.clone();
    tasks.spawn_cancellable("panics", async move {
        while asked.recv().await.is_some() {
            supervisor.inject_panic("data-plane");
        }
    });
    Ok(())
}

/// The first signal stops in order, the second at once.
fn watch_signals(tasks: &Tasks, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watching for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for signals")?;
    let stop = stop.clone();
    tasks.spawn_cancellable("signals", async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
    Ok(())
}

async fn read_again(file: FeedFile, mut hangups: Signal, snapshots: watch::Sender<Arc<Snapshot>>) {
    let mut version = 1;
    while hangups.recv().await.is_some() {
        let (again, next) = (file.clone(), version + 1);
        // As much as a feed may hold, from a disk: not on a thread that serves requests.
        let read = tokio::task::spawn_blocking(move || again.read(next)).await;
        let Ok(read) = read else {
            tracing::error!("reading the feed again failed; what was read before stays in force");
            continue;
        };
        match read {
            Ok(snapshot) => {
                version = next;
                tracing::info!(version, "feed read again");
                snapshots.send_replace(Arc::new(snapshot));
            }
            Err(error) => {
                tracing::error!("{error}; what was read before stays in force");
            }
        }
    }
    // No more signals come; the feed stays as it is.
    std::future::pending().await
}

async fn gateway(args: &GatewayArgs) -> anyhow::Result<()> {
    begin(&args.common, None)?;
    let mut component = Component::new(Options {
        role: Role::Gateway,
        // The Service in front of it listens on the usual port; where ports are shared, nothing is in front.
        https_port: if args.shared_ports {
            args.https_port
        } else {
            Some(443)
        },
        unknown_backend_wait: Duration::ZERO,
        ..Options::default()
    })?;
    drop(component.take_reports());
    let handle = component.handle.clone();
    handle.set_health(Health::NotConnected);
    let feed = component.follow_feed(&args.feed).await?;
    let listen = args.common.listen;
    let Bound {
        external,
        local,
        own,
    } = gateway_listeners(args).await?;
    let status = listeners::bind(listen, args.status_port, "gateway", "--status-port").await?;
    let (https, local_https) = https_listeners(args).await?;
    let mut addresses = vec![
        ("http", external.local_addr()?),
        ("local", local.local_addr()?),
        ("status", status.local_addr()?),
    ];
    let named = [
        ("own", &own),
        ("https", &https),
        ("localHttps", &local_https),
    ];
    for (name, listener) in named {
        if let Some(listener) = listener {
            addresses.push((name, listener.local_addr()?));
        }
    }
    component.tasks.component_cancellable(
        "route-tables",
        feed::follow(feed, component.updates.clone()),
    );
    handle.serve_gateway_status(status);
    let first = component.applied.wait_for(|version| *version > 0).await;
    first.context("the data plane ended")?;
    handle.serve(external, Listener::External);
    for local in [Some(local), own].into_iter().flatten() {
        handle.serve(local, Listener::ClusterLocal);
    }
    for (listener, kind) in [
        (https, Listener::External),
        (local_https, Listener::ClusterLocal),
    ] {
        if let Some(listener) = listener {
            handle.serve_tls(listener, kind)?;
        }
    }
    handle.set_health(Health::Ready);
    say_ready(&args.common, "gateway", &addresses)?;
    component
        .serve_until_stopped(&args.common, args.drain)
        .await
}

/// What a gateway listens on.
struct Bound {
    external: TcpListener,
    local: TcpListener,
    /// Its own alone, where it shares the others: by it this one is asked what it serves.
    own: Option<TcpListener>,
}

async fn gateway_listeners(args: &GatewayArgs) -> anyhow::Result<Bound> {
    let listen = args.common.listen;
    let local_listen = args.local_listen.unwrap_or(listen);
    if args.shared_ports {
        let loopback = Ipv4Addr::LOCALHOST.into();
        return Ok(Bound {
            external: listeners::bind_shared(listen, args.http_port, "gateway")?,
            local: listeners::bind_shared(local_listen, args.local_port, "gateway")?,
            own: Some(listeners::bind(loopback, 0, "gateway's probes", "--shared-ports").await?),
        });
    }
    Ok(Bound {
        external: listeners::bind(listen, args.http_port, "gateway", "--http-port").await?,
        local: listeners::bind(local_listen, args.local_port, "gateway", "--local-port").await?,
        own: None,
    })
}

/// Kourier's ports for https, unless others were asked for. Where ports are shared, only those that were.
async fn https_listeners(
    args: &GatewayArgs,
) -> anyhow::Result<(Option<TcpListener>, Option<TcpListener>)> {
    let listen = args.common.listen;
    let local_listen = args.local_listen.unwrap_or(listen);
    if args.shared_ports {
        let shared = |address, port: Option<u16>| {
            port.map(|port| listeners::bind_shared(address, port, "gateway"))
                .transpose()
        };
        return Ok((
            shared(listen, args.https_port)?,
            shared(local_listen, args.local_https_port)?,
        ));
    }
    let beside = |plain: u16, usual: u16| if plain == 0 { 0 } else { usual };
    let port = args.https_port;
    let port = port.unwrap_or_else(|| beside(args.http_port, 8443));
    let local = args.local_https_port;
    let local = local.unwrap_or_else(|| beside(args.local_port, 8444));
    Ok((
        Some(listeners::bind(listen, port, "gateway", "--https-port").await?),
        Some(listeners::bind(local_listen, local, "gateway", "--local-https-port").await?),
    ))
}

async fn activator(args: &ActivatorArgs) -> anyhow::Result<()> {
    begin(&args.common, None)?;
    let mut component = Component::new(Options {
        role: Role::Activator,
        source: Source::itself(args.pod_name.as_str()),
        cluster_domain: args.cluster_domain.clone(),
        idle_connections_max: args.max_idle_proxy_conns_per_host,
        ..Options::default()
    })?;
    let reports = component.take_reports();
    let handle = component.handle.clone();
    let autoscaler = args
        .autoscaler
        .as_ref()
        .map(|autoscaler| send_statistics(&component, autoscaler, reports));
    let feed = component.follow_feed(&args.feed).await?;
    let listen = args.common.listen;
    let http = listeners::bind(listen, args.http_port, "activator", "--http-port").await?;
    let h2c = listeners::bind(listen, args.h2c_port, "activator", "--h2c-port").await?;
    let mut addresses = vec![("http", http.local_addr()?), ("h2c", h2c.local_addr()?)];
    if args.metrics_protocol == MetricsProtocol::Prometheus {
        let resource = vec![
            ("service_name", "activator".to_owned()),
            ("k8s_pod_name", args.pod_name.clone()),
        ];
        let options = MetricsOptions {
            resource,
            autoscaler,
        };
        let at = serve_metrics(&handle, (listen, args.metrics_port), "activator", options).await?;
        addresses.push(("metrics", at));
    }
    let port = (listen, args.profiling_port);
    let profiling = serve_profiling(&handle, port, "activator", args.profiling).await?;
    addresses.push(("profiling", profiling));
    let backends = Backends {
        own: args.pod_ip,
        timeout: args.probe_timeout,
        every: args.probe_frequency,
    };
    component.tasks.component_cancellable(
        "queue-proxy-probes",
        backends.run(feed, component.updates.clone()),
    );
    for listener in [http, h2c] {
        handle.serve(listener, Listener::ClusterLocal);
    }
    say_ready(&args.common, "activator", &addresses)?;
    component
        .serve_until_stopped(&args.common, args.drain)
        .await
}

/// Reports go to the autoscaler; while they cannot, the activator is not ready.
fn send_statistics(
    component: &Component,
    autoscaler: &str,
    reports: mpsc::Receiver<Report>,
) -> StatConnection {
    component.handle.set_health(Health::NotConnected);
    let client = StatClient::new(StatClientOptions::new(autoscaler));
    let mut connected = client.is_connected();
    let connection = client.connection();
    let tasks = &component.tasks;
    tasks.component("statistics", client.run(reports, tasks.token()));
    let handle = component.handle.clone();
    tasks.component_cancellable("autoscaler-health", async move {
        loop {
            let health = match *connected.borrow_and_update() {
                true => Health::Ready,
                false => Health::NotConnected,
            };
            handle.set_health(health);
            if connected.changed().await.is_err() {
                // The client has ended, which its owner notices.
                return std::future::pending().await;
            }
        }
    });
    connection
}

/// Serves metrics for Prometheus; answers with where.
async fn serve_metrics(
    handle: &Handle,
    (listen, port): (IpAddr, u16),
    what: &str,
    options: MetricsOptions,
) -> anyhow::Result<SocketAddr> {
    let listener = listeners::bind(listen, port, what, "--metrics-port").await?;
    let address = listener.local_addr()?;
    handle.serve_metrics(listener, options);
    Ok(address)
}

/// Serves the profiler's port; answers with where.
async fn serve_profiling(
    handle: &Handle,
    (listen, port): (IpAddr, u16),
    what: &str,
    enabled: bool,
) -> anyhow::Result<SocketAddr> {
    let listener = listeners::bind(listen, port, what, "--profiling-port").await?;
    let address = listener.local_addr()?;
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    handle.serve_profiling(listener, enabled, &words);
    Ok(address)
}

/// What of a queue-proxy's environment asks for ports of their own.
async fn serve_observability(
    handle: &Handle,
    config: &QueueConfig,
    args: &QueueArgs,
) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
    let (listen, what) = (args.common.listen, "queue-proxy");
    let mut addresses = Vec::new();
    match &config.request_metrics {
        queue::MetricsProtocol::None => {}
        queue::MetricsProtocol::Prometheus => {
            let revision = &config.revision;
            let resource = vec![
                ("service_name", config.configuration.clone()),
                ("k8s_namespace_name", revision.namespace.to_string()),
                ("k8s_pod_name", config.pod.clone()),
                ("k8s_container_name", what.to_owned()),
                ("kn_configuration_name", config.configuration.clone()),
                ("kn_revision_name", revision.name.to_string()),
            ];
            let options = MetricsOptions {
                resource,
                autoscaler: None,
            };
            let at = serve_metrics(handle, (listen, args.metrics_port), what, options).await?;
            addresses.push(("metrics", at));
        }
        queue::MetricsProtocol::Other(protocol) => {
            tracing::warn!(
                protocol,
                "OBSERVABILITY_CONFIG asks for request metrics over a protocol that is not served; choose prometheus"
            );
        }
    }
    if config.profiling {
        let at = serve_profiling(handle, (listen, args.profiling_port), what, true).await?;
        addresses.push(("profiling", at));
    }
    Ok(addresses)
}

async fn queue(args: &QueueArgs) -> anyhow::Result<()> {
    let config = QueueConfig::from_environment(kinglet_cli::environment)?;
    begin(&args.common, Some(&config.logging_level))?;
    let mut component = Component::new(Options {
        role: Role::Queue,
        source: Source::itself(config.pod.as_str()),
        ..Options::default()
    })?;
    let reports = component.take_reports();
    let handle = component.handle.clone();
    let listen = args.common.listen;
    let serving = serving_listeners(listen, config.serving_port).await?;
    let admin = listeners::bind(listen, args.admin_port, "queue-proxy", "--admin-port").await?;
    let stat = listeners::bind(listen, args.stat_port, "queue-proxy", "--stat-port").await?;
    let mut addresses = vec![("admin", admin.local_addr()?), ("stat", stat.local_addr()?)];
    for (name, listener) in ["http", "other"].into_iter().zip(&serving) {
        addresses.push((name, listener.local_addr()?));
    }
    addresses.extend(serve_observability(&handle, &config, args).await?);
    if config.request_log.enabled {
        let log = &config.request_log;
        request_logs::to_standard_output(&log.template, log.probes, &handle, &component.tasks)
            .map_err(|error| {
                anyhow::anyhow!("environment variable OBSERVABILITY_CONFIG: {error}")
            })?;
    }
    let proxy = QueueProxy::new(
        handle.clone(),
        config,
        args.user_address,
        &component.updates,
        args.quiet,
    )
    .await;
    for listener in serving {
        handle.serve(listener, Listener::ClusterLocal);
    }
    proxy.serve_admin(admin);
    proxy.serve_statistics(stat, reports);
    say_ready(&args.common, "queue-proxy", &addresses)?;
    let outcome = component.stopped().await;
    if outcome.is_ok() {
        let began = Instant::now();
        report_stop(&args.common, &proxy.stop().await, began.elapsed());
    }
    component.tasks.shutdown(TASKS_STOP_MAX).await;
    outcome
}

/// The port that the controller named, and where it is one of the usual two, the other as well.
async fn serving_listeners(listen: IpAddr, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let bind = |port| listeners::bind(listen, port, "queue-proxy", "QUEUE_SERVING_PORT");
    let mut bound = vec![bind(port).await?];
    if SERVING_PORTS.contains(&port) {
        for other in SERVING_PORTS.into_iter().filter(|other| *other != port) {
            bound.push(bind(other).await?);
        }
    }
    Ok(bound)
}

/// Goes on accepting for `drain`, since some who send requests have not heard of the end yet.
async fn linger(component: &Component, drain: Duration) {
    tracing::info!(
        seconds = drain.as_secs_f64(),
        "stopping: accepting until those who send requests know"
    );
    tokio::select! {
        () = tokio::time::sleep(drain) => {}
        fault = component.supervisor.failed() => tracing::error!("{fault}"),
    }
}

/// First of all: a component that was started by a control plane ends with it, and what happens is logged. `level` is what
/// Knative's controller set, where no filter was given.
fn begin(args: &ComponentArgs, level: Option<&str>) -> anyhow::Result<()> {
    if let Some(parent) = args.parent {
        kinglet_process::child::end_with(parent).context("--parent")?;
    }
    let filter = match (&args.log, level) {
        (Some(filter), _) => filter.clone(),
        (None, Some("debug")) => "info,kinglet=debug".to_owned(),
        (None, Some("warn" | "error" | "dpanic" | "panic" | "fatal")) => "warn".to_owned(),
        (None, _) => "warn,kinglet=info".to_owned(),
    };
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    logging::start(&filter, color);
    Ok(())
}

/// Says what a stop had to cut.
fn report_stop(args: &ComponentArgs, cut: &Cut, after: Duration) {
    let report = report_cut(cut, after);
    let Some(file) = &args.stop_report else {
        return;
    };
    let text = serde_json::to_string(&report).expect("strings and numbers serialize");
    if let Err(error) = kinglet_process::private::write(file, &text) {
        tracing::warn!(%error, "what was cut is only in the log");
    }
}

/// Everything serves: says where.
fn say_ready(
    args: &ComponentArgs,
    what: &str,
    addresses: &[(&str, SocketAddr)],
) -> anyhow::Result<()> {
    let shown: serde_json::Map<String, serde_json::Value> = addresses
        .iter()
        .map(|(name, address)| {
            let address = listeners::shown(*address).to_string();
            ((*name).to_owned(), address.into())
        })
        .chain([("pid".to_owned(), std::process::id().into())])
        .collect();
    let text = serde_json::Value::from(shown).to_string();
    tracing::info!(addresses = text, "{what} serves");
    if let Some(file) = &args.ready_file {
        kinglet_process::private::write(file, &text).context("writing the ready file")?;
    }
    if let Err(error) = kinglet_node::release_start_pages() {
        tracing::debug!(%error, "the pages of the start stay in memory");
    }
    Ok(())
}
