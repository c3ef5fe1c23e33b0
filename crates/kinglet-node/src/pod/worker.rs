//! The task that looks after one pod.
//!
//! One loop: what the API says, what containers do, what probes find and what the clock says come in; [`crate::pod::lifecycle::next`]
//! decides; containers are started by tasks of the pod that answer with a message. Nothing but the write of the status
//! is waited for inside the loop.

mod containers;
mod pod_logs;
mod probes;
mod report;
mod starts;
mod storage;
mod termination;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kinglet_process::Tasks;
use kinglet_reconcile::{Severity, version_of};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::container::Container;
use crate::pod::container_state::{self, ContainerState, Role};
use crate::pod::start::{
    self, ContainerStartError, PodSandbox, Shared, SharedSandbox, Started, uid,
};
use crate::probe::prober::ProbeTarget;
use crate::probe::schedule::ProbeEvent;
use crate::sys::process::Exit;
use crate::volumes::PodDirectories;

use pod_logs::first_logs;
pub(crate) use pod_logs::{ContainerLogs, PodLogs};

/// Messages of one pod's tasks that may wait; each task waits when it is full.
const MESSAGES_MAX: usize = 64;
/// Changes on the way to readiness are told together: a pod that is ready sooner needs one write.
const REPORT_DELAY: Duration = Duration::from_millis(60);
/// A status that could not be written is tried again.
const REPORT_RETRY: Duration = Duration::from_secs(1);
/// Tokens and files from the API are brought up to date this often even if nobody says that they changed.
const REFRESH_PERIOD: Duration = Duration::from_secs(40 * 60);
/// Changed ConfigMaps and Secrets reach volumes after a short rest, so that several changes are one.
const REFRESH_DELAY: Duration = Duration::from_millis(200);
/// A start that fails this soon after a ConfigMap or Secret changed may have read the one before.
const SOURCES_SETTLE: Duration = Duration::from_secs(2);

/// What the node tells a worker; the latest wins.
#[derive(Clone, Debug)]
pub(crate) struct PodUpdate {
    /// The object; `None` when it is gone from the API.
    pub(crate) pod: Option<Arc<Pod>>,
    /// Goes up when a ConfigMap or Secret of the namespace changed.
    pub(crate) refresh: u64,
    /// The node stops: end what runs within this time, leave the object alone.
    pub(crate) stop: Option<Duration>,
}

/// What a pod's tasks tell their worker.
enum Message {
    Started {
        index: usize,
        attempt: u32,
        result: Box<Result<Started, ContainerStartError>>,
    },
    Exited {
        index: usize,
        attempt: u32,
        exit: Exit,
        out_of_memory: bool,
        last_words: String,
    },
    Probed {
        index: usize,
        attempt: u32,
        event: ProbeEvent,
    },
    PostStartFailed {
        index: usize,
        attempt: u32,
        message: String,
    },
    Drained,
    /// One of the tasks ended by a fault of its own: what it was to tell will never come.
    TaskPanicked(&'static str),
    /// The pod uses more disk than it may.
    StorageExceeded(String),
}

/// A container's process and what belongs to it.
struct RunningContainer {
    container: Arc<Container>,
    stop_signal: i32,
    target: ProbeTarget,
    probes: Tasks,
    /// Holds the image's layers.
    _image: Arc<kinglet_image::ReadyImage>,
}

/// The termination of a pod, once it has begun.
struct PodTermination {
    /// When patience ends.
    deadline: Instant,
    /// SIGTERM has been sent.
    asked: bool,
    killed: bool,
    /// The node stops; the API is left alone.
    leave_object: bool,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    signal: watch::Receiver<PodUpdate>,
    logs: Arc<Mutex<PodLogs>>,
    pod: Arc<Pod>,
    gone: bool,
    states: Vec<ContainerState>,
    running: HashMap<usize, RunningContainer>,
    sandbox: SharedSandbox,
    directories: PodDirectories,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    tasks: Tasks,
    start_time: Timestamp,
    termination: Option<PodTermination>,
    finished: Option<bool>,
    /// Why the whole pod failed, as reason and message.
    failure: Option<(&'static str, String)>,
    written: Option<PodStatus>,
    report_at: Option<Instant>,
    refresh_at: Instant,
    refreshed: u64,
    /// When a ConfigMap or Secret of the namespace changed last.
    sources_changed_at: Option<Instant>,
    proxy_probe: Option<Tasks>,
    /// Ends the pod's queue-proxy when dropped, where that is a process.
    queue_proxy: Option<Box<dyn Send + Sync>>,
    /// A task of the pod that panicked.
    panicked: Option<&'static str>,
}

/// A task of a pod panicked. Its worker has ended, and its containers with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskPanicked(pub(crate) &'static str);

/// A container that has ended is probed no more.
impl Drop for RunningContainer {
    fn drop(&mut self) {
        self.probes.cancel();
    }
}

/// Whatever ends a worker, also a fault of its own: neither its containers nor its tasks outlive it, as nobody would end them
/// any more.
impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks.cancel();
        for running in self.running.values() {
            let _ = running.container.kill();
        }
    }
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        signal: watch::Receiver<PodUpdate>,
        logs: Arc<Mutex<PodLogs>>,
        tasks: Tasks,
    ) -> Self {
        let mut states = container_state::of(&pod, &shared.options.queue_image_prefixes);
        // A pod of an earlier life goes on counting.
        let before = pod.status.iter().flat_map(|status| {
            status
                .container_statuses
                .iter()
                .flatten()
                .chain(status.init_container_statuses.iter().flatten())
        });
        for status in before.filter(|status| status.container_id.is_some()) {
            if let Some(state) = states.iter_mut().find(|state| state.name == status.name) {
                state.restarts = u32::try_from(status.restart_count).unwrap_or(0) + 1;
            }
        }
        let directories = PodDirectories::new(&shared.options.data_dir, uid(&pod));
        logs.lock().containers = states
            .iter()
            .map(|state| {
                (
                    state.name.clone(),
                    first_logs(&shared, &pod, &directories, state),
                )
            })
            .collect();
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let start_time = shared.context().now();
        let refreshed = signal.borrow().refresh;
        Self {
            shared,
            signal,
            logs,
            pod,
            gone: false,
            states,
            running: HashMap::new(),
            sandbox: SharedSandbox::default(),
            directories,
            sender,
            messages,
            tasks,
            start_time,
            termination: None,
            finished: None,
            failure: None,
            written: None,
            report_at: None,
            refresh_at: Instant::now() + REFRESH_PERIOD,
            refreshed,
            sources_changed_at: None,
            proxy_probe: None,
            queue_proxy: None,
            panicked: None,
        }
    }

    /// Has the worker told when a task of the pod panics, so that nobody waits for what it was to tell.
    fn watched(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let sender = self.sender.clone();
        async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                let _ = sender.send(Message::TaskPanicked(task)).await;
            }
        }
    }

    /// Runs until the pod is gone and nothing of it is left, or until a task of the pod has panicked.
    pub(crate) async fn run(mut self) -> Result<(), TaskPanicked> {
        tracing::debug!(
            pod = self.pod.metadata.name,
            uid = uid(&self.pod),
            "pod is taken in"
        );
        self.watch_storage();
        loop {
            if let Some(task) = self.panicked {
                return Err(TaskPanicked(task));
            }
            self.notice();
            let wake = self.decide();
            self.report().await;
            if self.is_over() {
                break;
            }
            let now = Instant::now();
            let mut until = self.refresh_at;
            for at in [
                wake,
                self.report_at,
                self.termination
                    .as_ref()
                    .filter(|termination| !termination.killed)
                    .map(|termination| termination.deadline),
            ]
            .into_iter()
            .flatten()
            {
                until = until.min(at);
            }
            tokio::select! {
                message = self.messages.recv() => {
                    if let Some(message) = message {
                        self.take(message);
                    }
                    // What came in the meantime belongs to the same report.
                    while let Ok(message) = self.messages.try_recv() {
                        self.take(message);
                    }
                }
                changed = self.signal.changed(), if !self.gone => {
                    // Nobody is there to say more: another pod has this one's name.
                    if changed.is_err() {
                        self.gone = true;
                        self.begin_termination(Duration::ZERO, true);
                    }
                }
                () = tokio::time::sleep_until(until.max(now)) => {
                    if Instant::now() >= self.refresh_at {
                        self.refresh().await;
                    }
                }
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Takes in what the node says.
    fn notice(&mut self) {
        let signal = self.signal.borrow_and_update().clone();
        match signal.pod {
            Some(pod) => {
                if version_of(&pod.metadata) >= version_of(&self.pod.metadata) {
                    if pod.metadata.generation != self.pod.metadata.generation
                        || pod.metadata.deletion_timestamp != self.pod.metadata.deletion_timestamp
                    {
                        self.report_soon();
                    }
                    self.pod = pod;
                }
                if self.pod.metadata.deletion_timestamp.is_some() {
                    let seconds = self.pod.metadata.deletion_grace_period_seconds;
                    self.begin_termination(termination::grace_of(seconds), false);
                }
            }
            None => {
                self.gone = true;
                self.begin_termination(Duration::ZERO, true);
            }
        }
        if let Some(grace) = signal.stop {
            self.begin_termination(grace, true);
        }
        if signal.refresh != self.refreshed {
            self.refreshed = signal.refresh;
            self.refresh_at = self.refresh_at.min(Instant::now() + REFRESH_DELAY);
            self.sources_changed_at = Some(Instant::now());
            self.retry_starts();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Started {
                index,
                attempt,
                result,
            } => match *result {
                Ok(started) => self.begin(index, attempt, started),
                Err(error) => self.start_failed(index, error),
            },
            Message::Exited {
                index,
                attempt,
                exit,
                out_of_memory,
                last_words,
            } => {
                if self.states[index].attempt == attempt {
                    self.ended(index, exit, out_of_memory, last_words);
                }
            }
            Message::Probed {
                index,
                attempt,
                event,
            } => {
                if self.states[index].attempt == attempt {
                    self.take_probe_event(index, event);
                }
            }
            Message::PostStartFailed {
                index,
                attempt,
                message,
            } => {
                if self.states[index].attempt == attempt && self.states[index].is_running() {
                    let name = self.states[index].name.clone();
                    self.shared.event(
                        &self.pod,
                        Some(&name),
                        Severity::Warning,
                        "FailedPostStartHook",
                        format!("PostStartHook failed: {message}"),
                    );
                    self.kill(index, "failed postStart hook", None);
                }
            }
            Message::StorageExceeded(message) => self.evict(message),
            Message::Drained => self.drained(),
            Message::TaskPanicked(task) => self.panicked = Some(task),
        }
    }

    fn is_proxied(&self) -> bool {
        self.states.iter().any(|state| state.role == Role::Proxy)
    }

    fn sandbox(&self) -> Option<&Arc<PodSandbox>> {
        self.sandbox.get()
    }

    /// Brings volumes up to date.
    async fn refresh(&mut self) {
        self.refresh_at = Instant::now() + REFRESH_PERIOD;
        if self.termination.is_some() || self.finished.is_some() {
            return;
        }
        if let Some(sandbox) = self.sandbox.get().cloned()
            && let Err(message) =
                start::write_volumes(&self.shared, &self.pod, &sandbox.downward).await
        {
            tracing::debug!(
                pod = self.pod.metadata.name,
                message,
                "volumes keep their former contents"
            );
        }
    }
}
