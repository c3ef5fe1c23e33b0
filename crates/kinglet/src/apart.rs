//! `kinglet up --data-plane apart`, a shape for tests: the control plane in this process, gateways, activators and a
//! queue-proxy for each pod in processes of their own, which are its children.
//!
//! Flow: controllers' updates -> [`hub`] -> a Unix socket -> gateways and activators; activators -> statistics server,
//! [`scrapes`] of queue-proxies -> reports for the autoscaler; gateways answer the probes of Ingresses. [`children`] are kept
//! running; [`queues`] run in the network of their pod, where Knative's do.
//! Always: a child that ends is started again; all of them end with this process, whatever ends it; nothing here runs in the
//! ordinary shape.

mod children;
mod hub;
mod queues;
mod scrapes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use kinglet_cli::control::StopReport;
use kinglet_cli::{DataPlane, UpArgs};
use kinglet_dataplane::feed::{self, Snapshot};
use kinglet_dataplane::{Cut, GatewayProber, stats};
use kinglet_decide::feed::{Key, Report};
use kinglet_node::{Drain, MachineAddress, NodeHandle, QueueProxies};
use kinglet_process::Tasks;
use kinglet_reconcile::Caches;
use kinglet_serving::ingress::{Gateways, ProbeAnswer, ProbeGateway, Probed};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::listeners;
use crate::standalone::{CONTAINERS_MIN, MACHINE_STOP_MAX};
use crate::start::{Channels, InsidePorts};
use children::{Child, Program};
use queues::Queues;

/// Updates on their way to the feed, and reports to the autoscaler: as in the ordinary shape.
const QUEUED_MAX: usize = 4096;
/// Between what requests may take in a child and what this process waits: for the 503 of those that are cut, and the report.
const CUT_TIME: Duration = Duration::from_millis(500);
/// Port of a gateway for pods.
const LOCAL_PORT: u16 = 80;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    gateways: u16,
    activators: u16,
    folder: PathBuf,
    log: String,
}

impl Shape {
    /// `None` for the ordinary shape.
    pub(crate) fn of(args: &UpArgs) -> Option<Self> {
        (args.data_plane == DataPlane::Apart).then(|| Self {
            gateways: args.gateways,
            activators: args.activators,
            folder: kinglet_cli::location::data_directory(&args.data).join("apart"),
            log: args.log.clone(),
        })
    }

    /// Where the component of this name writes what its stop had to cut.
    fn report(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.stop"))
    }
}

/// The data plane in processes of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Apart(Arc<Inner>);

struct Inner {
    shape: Shape,
    tasks: Tasks,
    reports: mpsc::Sender<Report>,
    /// Where each gateway is asked what it serves.
    probed: watch::Sender<BTreeSet<SocketAddr>>,
    activator_addresses: watch::Sender<BTreeSet<IpAddr>>,
    queues: Queues,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    gateways: Vec<Arc<Child>>,
    activators: Vec<Arc<Child>>,
    addresses: Vec<Ipv4Addr>,
    /// Given back with the last activator.
    _leases: Vec<MachineAddress>,
    /// Ports that the gateways share stay theirs while one of them is started again.
    _held: Vec<TcpSocket>,
}

impl Apart {
    /// Puts the feed in place of the data plane of this process. Nothing runs yet but the feed.
    pub(crate) fn open(
        shape: &Shape,
        channels: &mut Channels,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        // What a crash left: files of pods that are gone.
        let _ = std::fs::remove_dir_all(&shape.folder);
        kinglet_process::private::directory(&shape.folder)
            .context("preparing the folder of the data plane's processes")?;
        let (updates, update_queue) = mpsc::channel(QUEUED_MAX);
        let (reports, report_queue) = mpsc::channel(QUEUED_MAX);
        let (applied_now, applied) = watch::channel(0);
        let (snapshots, told) = watch::channel(Arc::<Snapshot>::default());
        let activator_addresses = watch::Sender::new(BTreeSet::new());
        let probed = watch::Sender::new(BTreeSet::new());
        let probe = Arc::new(Prober(
            GatewayProber::new().context("preparing probes of gateways")?,
        ));
        *channels = Channels {
            updates,
            reports: report_queue,
            applied,
            gateways: Gateways::in_other_processes(Probed {
                addresses: probed.subscribe(),
                probe,
            }),
        };
        let activators = activator_addresses.subscribe();
        tasks.component_cancellable(
            "feed-hub",
            hub::run(update_queue, activators, snapshots, applied_now),
        );
        let listener = bind(&shape.folder.join("feed.sock"))?;
        tasks.component_cancellable("feed-listener", feed::serve(listener, told, tasks.child()));
        Ok(Self(Arc::new(Inner {
            queues: Queues::new(&shape.folder, &shape.log, tasks),
            shape: shape.clone(),
            tasks: tasks.clone(),
            reports,
            probed,
            activator_addresses,
            running: Mutex::default(),
        })))
    }

    /// Lets the queue-proxy of a pod finish.
    pub(crate) fn drain(&self) -> Drain {
        let queues = self.0.queues.clone();
        Arc::new(move |address| queues.drain(address).boxed())
    }

    /// Runs queue-proxies.
    pub(crate) fn queue_proxies(&self) -> QueueProxies {
        let queues = self.0.queues.clone();
        Arc::new(move |pod| Box::new(queues.start(pod)))
    }

    /// Addresses of the activators, once they run.
    pub(crate) fn activators(&self) -> Vec<Ipv4Addr> {
        self.0.running.lock().addresses.clone()
    }

    /// Starts everything, gateways last; they take the ports of `http` and `https`. Returns when all serve.
    pub(crate) async fn serve(
        &self,
        http: TcpListener,
        https: Option<TcpListener>,
        ports: InsidePorts,
        node: &NodeHandle,
        caches: &Caches,
    ) -> anyhow::Result<()> {
        let bridge = node.gateway_ip();
        self.0.queues.set_host(bridge);
        let statistics = self.serve_statistics().await?;
        scrapes::start(caches, &self.0.reports, &self.0.tasks);
        let activators = self.start_activators(bridge, statistics, node).await?;
        let gateways = self
            .start_gateways(http, https, (bridge.into(), ports))
            .await?;
        for child in activators.iter().chain(&gateways) {
            child.serves().await?;
        }
        Ok(())
    }

    /// The autoscaler's end of the activators' sockets.
    async fn serve_statistics(&self) -> anyhow::Result<SocketAddr> {
        let inner = &self.0;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listening on loopback for the statistics of activators")?;
        let address = listener.local_addr()?;
        // There is one autoscaler, and every bucket is its own.
        let serving = stats::serve(
            listener,
            inner.reports.clone(),
            |_| true,
            inner.tasks.child(),
        );
        inner
            .tasks
            .component_cancellable("statistics-server", serving);
        Ok(address)
    }

    /// The first one has the bridge's address, every other one an address of its own there: by addresses they are told apart.
    async fn start_activators(
        &self,
        bridge: Ipv4Addr,
        statistics: SocketAddr,
        node: &NodeHandle,
    ) -> anyhow::Result<Vec<Arc<Child>>> {
        let inner = &self.0;
        let (mut addresses, mut leases) = (vec![bridge], Vec::new());
        for _ in 1..inner.shape.activators {
            let lease = node.machine_address().await?;
            addresses.push(lease.ip());
            leases.push(lease);
        }
        let all = addresses.iter().copied().map(IpAddr::V4).collect();
        inner.activator_addresses.send_replace(all);
        let children: Vec<Arc<Child>> = addresses
            .iter()
            .enumerate()
            .map(|(number, address)| {
                let name = format!("activator-{number}");
                let (address, pod) = (address.to_string(), name.clone());
                self.keep("activator-process", name, move |command| {
                    command
                        .args(["--http-port", "8012", "--h2c-port", "8013"])
                        .args(["--profiling-port", "0", "--drain", "0s"])
                        .args(["--listen", &address, "--pod-ip", &address])
                        .args(["--pod-name", &pod])
                        .args(["--autoscaler", &statistics.to_string()]);
                })
            })
            .collect();
        let mut running = inner.running.lock();
        running.activators.clone_from(&children);
        running.addresses = addresses;
        running._leases = leases;
        Ok(children)
    }

    async fn start_gateways(
        &self,
        http: TcpListener,
        https: Option<TcpListener>,
        (local, ports): (IpAddr, InsidePorts),
    ) -> anyhow::Result<Vec<Arc<Child>>> {
        let inner = &self.0;
        let external = http.local_addr()?;
        drop(http);
        let local_port = ports.http.unwrap_or(LOCAL_PORT);
        let mut held = vec![
            listeners::hold_shared(external).await?,
            listeners::hold_shared((local, local_port).into()).await?,
        ];
        let mut https_flags = Vec::new();
        if let Some(https) = https {
            let external = https.local_addr()?;
            drop(https);
            held.push(listeners::hold_shared(external).await?);
            https_flags.extend(["--https-port".to_owned(), external.port().to_string()]);
            if let Some(port) = ports.https {
                held.push(listeners::hold_shared((local, port).into()).await?);
                https_flags.extend(["--local-https-port".to_owned(), port.to_string()]);
            }
        }
        let children: Vec<Arc<Child>> = (0..inner.shape.gateways)
            .map(|number| {
                let https_flags = https_flags.clone();
                self.keep(
                    "gateway-process",
                    format!("gateway-{number}"),
                    move |command| {
                        command.args(&https_flags);
                        command
                            .args(["--shared-ports", "--status-port", "0", "--drain", "0s"])
                            .args(["--listen", &external.ip().to_string()])
                            .args(["--http-port", &external.port().to_string()])
                            .args(["--local-listen", &local.to_string()])
                            .args(["--local-port", &local_port.to_string()]);
                    },
                )
            })
            .collect();
        for child in &children {
            inner.tasks.spawn_cancellable(
                "gateway addresses",
                follow_address(self.clone(), child.clone()),
            );
        }
        let mut running = inner.running.lock();
        running.gateways.clone_from(&children);
        running._held = held;
        Ok(children)
    }

    /// Keeps a component of the feed running.
    fn keep(
        &self,
        component: &'static str,
        name: String,
        flags: impl Fn(&mut Command) + Send + Sync + 'static,
    ) -> Arc<Child> {
        let shape = self.0.shape.clone();
        let (verb, own) = (component.trim_end_matches("-process"), name.clone());
        let make = move || {
            let mut command = children::command(verb, &shape.log);
            command.arg("--feed").arg(shape.folder.join("feed.sock"));
            command.arg("--stop-report").arg(shape.report(&own));
            let requests = MACHINE_STOP_MAX.saturating_sub(CONTAINERS_MIN + CUT_TIME);
            command.args(["--requests-max", &format!("{}ms", requests.as_millis())]);
            flags(&mut command);
            command
        };
        let program = Program::new(&self.0.shape.folder, name, make);
        let (child, keeping) = Child::keep(program);
        self.0.tasks.component(component, keeping);
        Arc::new(child)
    }

    /// Gateways take no more requests and let theirs end, then activators; queue-proxies have none left then. Answers with
    /// what was cut.
    pub(crate) async fn finish_requests(&self, max: Duration) -> Cut {
        let deadline = Instant::now() + max;
        let (gateways, activators) = {
            let running = self.0.running.lock();
            (running.gateways.clone(), running.activators.clone())
        };
        let mut requests = BTreeMap::new();
        let report = |child: &Child| self.0.shape.report(child.name());
        for child in &gateways {
            let _ = std::fs::remove_file(report(child));
        }
        for group in [&gateways, &activators] {
            join_all(group.iter().map(|child| child.finish(deadline))).await;
        }
        for child in &gateways {
            for (backend, count) in cut_of(&report(child)) {
                *requests.entry(backend).or_default() += count;
            }
            let _ = std::fs::remove_file(report(child));
        }
        self.0.queues.end();
        Cut { requests }
    }
}

/// What a gateway had to cut, as it has written it.
fn cut_of(report: &Path) -> Vec<(Key, u32)> {
    let Ok(text) = std::fs::read(report) else {
        return Vec::new();
    };
    let report = serde_json::from_slice::<StopReport>(&text).map(|report| report.cut);
    let key = |(backend, count): (String, u32)| {
        let (namespace, name) = backend.split_once('/')?;
        Some((Key::new(namespace, name), count))
    };
    report
        .unwrap_or_default()
        .into_iter()
        .filter_map(key)
        .collect()
}

/// Has a gateway asked where it listens, in whichever of its lives.
async fn follow_address(apart: Apart, child: Arc<Child>) {
    let mut lives = child.lives();
    let mut before = None;
    loop {
        let now = lives
            .borrow_and_update()
            .as_ref()
            .and_then(|life| life.address("own"));
        apart.0.probed.send_modify(|all| {
            // The one that a killed gateway had stays until it is back: nobody else serves what it served.
            if now.is_some() {
                before.take().map(|before| all.remove(&before));
                all.extend(now);
            }
        });
        before = now.or(before);
        if lives.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the socket of the feed, for this user alone.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    // Left by a crash; the data directory's lock says that nobody else listens there.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)
        .with_context(|| format!("making the feed's socket {}", path.display()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .with_context(|| format!("closing {} to others", path.display()))?;
    Ok(listener)
}

struct Prober(GatewayProber);

impl ProbeGateway for Prober {
    fn probe<'a>(&'a self, at: SocketAddr, host: &'a str, tls: bool) -> BoxFuture<'a, ProbeAnswer> {
        async move {
            match self.0.ask(at, host, tls).await {
                Ok(answer) => ProbeAnswer::Status {
                    code: answer.status,
                    hash: answer.hash,
                },
                Err(reason) => ProbeAnswer::Unreachable(reason),
            }
        }
        .boxed()
    }
}
