//! `kinglet up`: the whole of Kinglet in this process.
//!
//! Start: directory and lock, certificates, ports, store, API server, first objects, machine, listeners, ready.
//! Stop, against the flow: no new requests, drain, stop deciding, stop containers, flush the store.

mod data;
mod ready;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_apiserver::{ApiServer, Identity, WriteAttributes};
use kinglet_cli::UpArgs;
use kinglet_cli::control::StopReport;
use kinglet_cli::location;
use kinglet_dataplane::Cut;
use kinglet_image::{Images, Registries};
use kinglet_node::{Node, ServiceRange};
use kinglet_process::notify::{State, notify};
use kinglet_process::pki::{Names, Pki, ServerCredential};
use kinglet_process::{Clock, Supervisor, Tasks, logging, tls};
use kinglet_serving::configs::LiveConfigs;
use kinglet_store::Store;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(crate) use self::data::make_private;
use self::data::{explain, has_room, warn_of_lost_objects};
use self::ready::{announce, publish};
use crate::admission::Rules;
use crate::control::{self, Control};
use crate::start::{self, Machine, MachineOptions, Outside};
use crate::{bootstrap, listeners, logs, samples};

/// Names by which pods know the API server.
const HOSTS: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// Requests and containers together; the rest of the 30 s that a stop may take is for API connections and the store.
pub(crate) const MACHINE_STOP_MAX: Duration = Duration::from_millis(28_500);
/// The same after a component has failed.
pub(crate) const FAULT_STOP_MAX: Duration = Duration::from_millis(7_500);
/// What containers have of it when requests take all they may: between SIGTERM and SIGKILL at least half of it.
pub(crate) const CONTAINERS_MIN: Duration = Duration::from_millis(2_500);
/// The last changes, on a slow disk.
const FLUSH_MAX: Duration = Duration::from_secs(2);
pub(crate) const API_STOP_MAX: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, Ctrl-C or `kinglet down`.
pub(crate) async fn up(args: &UpArgs) -> anyhow::Result<()> {
    // First of all: without root nothing else matters, and nothing may be left behind.
    Node::preflight()?;
    kinglet_process::descriptors::raise_limit();
    args.check()?;
    logging::start(
        &args.log,
        std::io::IsTerminal::is_terminal(&std::io::stderr()),
    );
    let stop = CancellationToken::new();
    watch_signals(&stop)?;
    let supervisor = Supervisor::new();
    watch_components(&supervisor, &stop);
    let started = tokio::time::Instant::now();
    let clock = Clock::system();
    let opened = Opened::open(args, &clock).await?;
    let objects = Objects::prepare(args, &opened, &clock, &supervisor).await?;
    let store = opened.store.clone();
    let tasks = Tasks::new().supervised_by(&supervisor);
    let outcome = if stop.is_cancelled() {
        Ok(())
    } else {
        run(
            args,
            opened,
            objects,
            &tasks,
            &Ending {
                stop: stop.clone(),
                supervisor: supervisor.clone(),
            },
            started,
        )
        .await
    };
    tasks.shutdown(API_STOP_MAX).await;
    outcome?;
    if let Some(fault) = supervisor.fault() {
        // What is on disk already is kept; what waits may be what the fault was about.
        let _ = tokio::time::timeout(FLUSH_MAX, store.flush()).await;
        return Err(failed(&fault));
    }
    tokio::time::timeout(FLUSH_MAX, store.flush())
        .await
        .unwrap_or_else(|_| {
            Err(kinglet_store::WriteError::Refused {
                detail: format!(
                    "the disk did not take them within {} s",
                    FLUSH_MAX.as_secs()
                ),
            })
        })
        .context("writing the last changes to disk")?;
    store.close();
    Ok(())
}

/// How the process comes to its end.
pub(crate) struct Ending {
    /// Cancelled by a signal, by `kinglet down`, or by a component that failed.
    pub(crate) stop: CancellationToken,
    pub(crate) supervisor: Supervisor,
}

impl Ending {
    /// Waits for the end, and answers how long the stop may take.
    pub(crate) async fn wait(&self) -> Duration {
        self.stop.cancelled().await;
        self.supervisor.begin_stop();
        match self.supervisor.fault() {
            Some(fault) => {
                tracing::error!("{fault}; stopping");
                FAULT_STOP_MAX
            }
            None => MACHINE_STOP_MAX,
        }
    }
}

/// Stops the process when a component has failed.
pub(crate) fn watch_components(supervisor: &Supervisor, stop: &CancellationToken) {
    let (supervisor, stop) = (supervisor.clone(), stop.clone());
    #[expect(
        clippy::disallowed_methods,
        reason = "components are watched as long as the process lives"
    )]
    drop(tokio::task::spawn(async move {
        supervisor.failed().await;
        stop.cancel();
    }));
}

/// The last words of a process that a component took down.
pub(crate) fn failed(fault: &kinglet_process::Fault) -> anyhow::Error {
    anyhow::anyhow!(
        "{fault}\nKinglet has stopped, since it cannot work without it; what was acknowledged is on disk, start it again with `kinglet up`. This is a fault of Kinglet: please report it with these lines\n{}",
        fault.backtrace
    )
}

/// What a start takes for itself before anything runs.
struct Opened {
    data: PathBuf,
    /// A life before this one left objects.
    has_objects: bool,
    store: Store,
    api_listener: TcpListener,
    http_listener: TcpListener,
    https_listener: Option<TcpListener>,
    api_address: SocketAddr,
    http_address: SocketAddr,
    https_address: Option<SocketAddr>,
    pki: Pki,
    images: Images,
}

impl Opened {
    async fn open(args: &UpArgs, clock: &Clock) -> anyhow::Result<Self> {
        let data = location::data_directory(&args.data);
        make_private(&data)?;
        has_room(&data)?;
        let has_objects = data.join("store").exists();
        warn_of_lost_objects(&data);
        let store = Store::open(&data.join("store"), ApiServer::store_options())
            .map_err(|error| explain(&data, &error))?;
        let api_listener =
            listeners::bind(args.listen, args.api_port, "Kubernetes API", "--api-port").await?;
        let http_listener = listeners::bind_http(args.listen, args.http_port).await?;
        let https_listener =
            listeners::bind_https(args.listen, args.https_port, args.http_port).await?;
        let https_address = https_listener
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?;
        let pki = Pki::open(&data.join("pki"), clock.now())?;
        let images = Images::open(
            &data.join("images"),
            registries(args.registries.as_deref(), &data)?,
            samples::images(),
        )?;
        Ok(Self {
            has_objects,
            store,
            api_address: api_listener.local_addr()?,
            http_address: http_listener.local_addr()?,
            api_listener,
            http_listener,
            https_listener,
            https_address,
            pki,
            images,
            data,
        })
    }
}

/// The API server with the objects that are always there; nobody can reach it yet.
struct Objects {
    api: ApiServer,
    client: kube::Client,
    rules: Arc<Rules>,
    pod_logs: Arc<logs::Logs>,
    services: ServiceRange,
    /// Address of the `kubernetes` Service.
    api_service: Option<Ipv4Addr>,
    clock: Clock,
}

impl Objects {
    async fn prepare(
        args: &UpArgs,
        opened: &Opened,
        clock: &Clock,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let supervisor = supervisor.clone();
        let rules = Arc::new(Rules {
            configs: RwLock::new(LiveConfigs::fixed(
                kinglet_api::config::Configs::for_domain(&args.domain),
            )),
            eventing: RwLock::default(),
            clock: clock.clone(),
        });
        let pod_logs = Arc::new(logs::Logs::new(clock.clone()));
        let services = kinglet_node::service_range(&opened.data, opened.has_objects)?;
        let api = ApiServer::new(
            opened.store.clone(),
            kinglet_apiserver::Options {
                service_network: services.network(),
                components: Arc::new(move || supervisor.health()),
                ..options(&opened.pki, clock, &rules, &pod_logs)?
            },
        );
        bootstrap::definitions(&api).await?;
        let client = kube::Client::new(
            api.service(Identity::in_process(
                "system:serviceaccount:knative-serving:controller",
            )),
            "default",
        );
        bootstrap::run(&client)
            .await
            .context("preparing the first objects")?;
        // A full or failing disk is said now, not after "Kinglet is up".
        opened
            .store
            .flush()
            .await
            .with_context(|| format!("starting with data directory {}", opened.data.display()))?;
        let api_service = bootstrap::api_service(&client, services.first()).await?;
        Ok(Self {
            api,
            client,
            rules,
            pod_logs,
            services,
            api_service,
            clock: clock.clone(),
        })
    }
}

/// Everything from the machine on. It leaves traces on the host: whatever goes wrong, they are taken away again.
async fn run(
    args: &UpArgs,
    opened: Opened,
    objects: Objects,
    tasks: &Tasks,
    ending: &Ending,
    started: tokio::time::Instant,
) -> anyhow::Result<()> {
    let stop = &ending.stop;
    let data = opened.data.clone();
    let store = opened.store.clone();
    tasks.component_cancellable("store-writer", async move { store.writer_ended().await });
    let options = MachineOptions {
        client: objects.client.clone(),
        clock: objects.clock.clone(),
        tasks: tasks.child(),
        data: opened.data.clone(),
        domain: args.domain.clone(),
        images: opened.images,
        network: kinglet_node::NetworkOptions {
            services: Some(objects.services),
            api_port: Some(opened.api_address.port()),
            gateway_port: listeners::moved_gateway_port(opened.http_address)?,
            gateway_https: listeners::https_port_inside(opened.https_address)?,
            by_components: args.data_plane == kinglet_cli::DataPlane::Apart,
            node_ports_on: match args.listen {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(address) => address.is_unspecified().then_some(Ipv4Addr::UNSPECIFIED),
            },
        },
        ca_pem: Some(opened.pki.ca_pem.clone()),
        browsers: Some(opened.pki.browsers.clone()),
        parts: kinglet_workloads::Parts::ALL,
        apart: crate::apart::Shape::of(args),
    };
    let outside = Outside {
        http: opened.http_listener,
        https: opened.https_listener,
    };
    let machine = start::start(options, outside, stop).await?;
    crate::heap::follow_history(opened.store.clone(), tasks);
    objects.api.leave_by(machine.node.egress());
    *objects.rules.configs.write() = machine.configs.clone();
    objects.pod_logs.attach(machine.node.clone());

    let serving_api = tasks.child();
    let served = async {
        let bridge = machine.node.gateway_ip();
        let mut listen = vec![args.listen, IpAddr::V4(Ipv4Addr::LOCALHOST), bridge.into()];
        listen.extend(objects.api_service.map(IpAddr::V4));
        let port = opened.api_address.port();
        bootstrap::endpoints(&objects.client, bridge, &machine.activators(), Some(port)).await?;
        let inside = listeners::bind_on_bridge(bridge.into(), port)?;
        let listeners = [opened.api_listener, inside];
        serve_api(
            &objects.api,
            &opened.pki,
            &objects.clock,
            &listen,
            listeners,
            &serving_api,
        )?;
        let addresses = publish(
            args,
            &opened.data,
            &opened.pki,
            &format!("https://{}", listeners::shown(opened.api_address)),
            &format!("http://{}", listeners::shown(opened.http_address)),
            opened.https_address,
        )?;
        control::serve(
            Control {
                addresses: addresses.clone(),
                data: opened.data,
                images: machine.images.clone(),
                caches: machine.caches.clone(),
                gateway: machine.gateway.clone(),
                store: opened.store,
                waterfalls: machine.waterfalls.clone(),
                flags: args.flags(),
                started,
                stop: stop.clone(),
                supervisor: ending.supervisor.clone(),
            },
            tasks,
        )?;
        announce(args.ready_file.as_deref(), &addresses, stop)
    };
    let outcome = served.await;
    let stop_max = match outcome {
        Ok(()) => ending.wait().await,
        Err(_) => MACHINE_STOP_MAX,
    };
    if outcome.is_ok() {
        notify(location::notify_socket().as_deref(), State::Stopping);
        tracing::info!("stopping: finishing requests under way");
    }
    ending.supervisor.begin_stop();
    stop_machine(&machine, &data, stop_max).await;
    serving_api.shutdown(API_STOP_MAX).await;
    outcome
}

fn serve_api(
    api: &ApiServer,
    pki: &Pki,
    clock: &Clock,
    addresses: &[IpAddr],
    listeners: [TcpListener; 2],
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let names = Names {
        hosts: HOSTS.map(str::to_owned).into(),
        addresses: addresses.to_vec(),
    };
    let shown = ServerCredential::issue(pki, names, clock.clone())?;
    let tls = tls::server_config(pki, Arc::new(shown.clone()))?;
    tasks.restarted("certificates", move || shown.clone().keep_fresh());
    for listener in listeners {
        tasks.component(
            "api-listener",
            kinglet_apiserver::listen::serve(api.clone(), listener, tls.clone(), tasks.clone()),
        );
    }
    Ok(())
}

/// Lets requests end, then containers, under one deadline: what requests leave of the time, containers may use.
/// What was cut is said in the log and left for `kinglet down`.
pub(crate) async fn stop_machine(machine: &Machine, data: &Path, max: Duration) {
    let deadline = tokio::time::Instant::now() + max;
    let requests_max = max.saturating_sub(CONTAINERS_MIN);
    let cut = machine.finish_requests(requests_max).await;
    let report = report_cut(&cut, requests_max);
    let text = serde_json::to_string(&report).expect("strings and numbers serialize");
    if let Err(error) = kinglet_process::private::write(&location::stop_report(data), &text) {
        tracing::debug!(%error, "what was cut is only in the log");
    }
    machine.stop(deadline).await;
}

/// Says in the log what was cut.
pub(crate) fn report_cut(cut: &Cut, after: Duration) -> StopReport {
    let report = StopReport {
        pid: std::process::id(),
        cut: cut
            .requests
            .iter()
            .map(|(backend, requests)| (backend.to_string(), *requests))
            .collect(),
        after_seconds: after.as_secs(),
    };
    if let Some(line) = report.line() {
        tracing::warn!("{line}");
    }
    report
}

/// Signals work from the first moment on, so that an early Ctrl-C is no crash.
pub(crate) fn watch_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("watching for signals")?;
        let stop = stop.clone();
        // Lives as long as the process.
        #[expect(
            clippy::disallowed_methods,
            reason = "signals are watched as long as the process lives"
        )]
        drop(tokio::task::spawn(async move {
            signals.recv().await;
            stop.cancel();
        }));
    }
    Ok(())
}

pub(crate) fn registries(file: Option<&Path>, data: &Path) -> anyhow::Result<Registries> {
    Ok(match file {
        Some(file) => Registries::load(file, true)?,
        None => Registries::load(&data.join("registries.conf"), false)?,
    })
}

fn options(
    pki: &Pki,
    clock: &Clock,
    rules: &Arc<Rules>,
    pod_logs: &Arc<logs::Logs>,
) -> anyhow::Result<kinglet_apiserver::Options> {
    let convert: kinglet_apiserver::Convert =
        Arc::new(|object, version| kinglet_api::conversion::convert(object.clone(), version));
    Ok(kinglet_apiserver::Options {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: clock.clone(),
        admission: Some(rules.clone()),
        conversions: vec![("eventtypes.eventing.knative.dev".to_owned(), convert)],
        logs: Some(pod_logs.clone()),
        sessions: Some(pod_logs.clone()),
        synced: Arc::new(promised),
        signer: Some(Arc::new(
            kinglet_apiserver::Signer::from_pem(&pki.service_account_key_pem)
                .map_err(|error| anyhow::anyhow!("reading the service account key: {error}"))?,
        )),
        schemas: Some(Arc::new(kinglet_api::builtin_schemas::schema)),
        ..kinglet_apiserver::Options::default()
    })
}

/// Of our own controllers' writes only a new Revision and its resolved digests wait for the disk: both are promises to
/// users (immutable snapshots), everything else can be made again.
fn promised(write: &WriteAttributes<'_>) -> bool {
    if (write.group, write.resource) != ("serving.knative.dev", "revisions") {
        return false;
    }
    let digests = |object: Option<&serde_json::Value>| {
        object
            .and_then(|object| object.pointer("/status/containerStatuses"))
            .cloned()
    };
    write.create
        || (write.subresource == "status" && digests(Some(write.object)) != digests(write.old))
}
