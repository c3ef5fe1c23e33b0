//! `kinglet gateway`, `activator`, `queue`: one component of the data plane in a process of its own.
//!
//! Flow: flags and environment -> listeners -> feed -> [`Dataplane`] by its role, until SIGTERM.
//! Always: no node, no store, no API client; a first signal drains, a second one ends the process at once with status 1
//! (spec/cluster.md 1.12); SIGHUP reads the feed again.

mod activator;
mod gateway;
mod queue;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_cli::{Command, ComponentArgs};
use kinglet_dataplane::feed::{FeedFile, FeedSocket, Snapshot};
use kinglet_dataplane::queue::UPGRADES_MAX;
use kinglet_dataplane::{Cut, Dataplane, Handle, Health, MetricsOptions, Options};
use kinglet_decide::feed::{Report, Update};
use kinglet_process::{Clock, Supervisor, Tasks, logging};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::listeners;
use crate::standalone::report_cut;

/// Updates on their way to the data plane; the feed waits while it is full.
const UPDATES_QUEUED: usize = 1024;
/// Reports on their way out: a second's worth of a thousand Revisions.
const REPORTS_QUEUED: usize = 1024;
/// Of a component's own tasks.
const TASKS_STOP_MAX: Duration = Duration::from_secs(1);
/// Stack of a runtime's thread: requests are futures, which need little of it.
const STACK_BYTES: usize = 512 * 1024;

/// Runs a component, when it is one that was asked for.
pub(crate) fn run(command: &Command) -> Option<anyhow::Result<()>> {
    match command {
        Command::Gateway(args) => Some(on_threads(gateway::gateway(args))),
        Command::Activator(args) => Some(on_threads(activator::activator(args))),
        Command::Queue(args) => Some(on_one_thread(queue::queue(args))),
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
