//! The task that looks after one pod.
//!
//! One loop: what the API says, what containers do, what probes find and what the clock says come in; [`lifecycle::next`]
//! decides; containers are started by tasks of the pod that answer with a message. Nothing but the write of the status
//! is waited for inside the loop.

mod ending;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kinglet_process::Tasks;
use kinglet_reconcile::Severity;
use kinglet_reconcile::version_of;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::container::Container;
use crate::logs::Log;
use crate::pod::backoff;
use crate::pod::container_state::{self, ContainerState, Ending, Role, Stage};
use crate::pod::hooks;
use crate::pod::lifecycle::{self, RestartPolicy, later};
use crate::pod::start::{
    self, ContainerStartError, PodSandbox, Shared, SharedSandbox, Started, uid,
};
use crate::probe::check::Target;
use crate::probe::tally::Verdict;
use crate::probe::watch::Finding;
use crate::probe::{self, Purpose, connect};
use crate::sys::process::Exit;
use crate::volumes::PodDirectories;

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
/// What is kept of a container's last words (Kubernetes' bounds).
const LAST_WORDS_BYTES_MAX: usize = 4096;
const LAST_WORDS_LINES_MAX: usize = 80;
const LAST_WORDS_FROM_LOG_BYTES_MAX: usize = 2048;
/// After its end a container's pipes may still be held by nobody; the log is complete when they close.
const LOG_END_TIMEOUT: Duration = Duration::from_millis(500);

/// What the node tells a worker; the latest wins.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    /// The object; `None` when it is gone from the API.
    pub(crate) pod: Option<Arc<Pod>>,
    /// Goes up when a ConfigMap or Secret of the namespace changed.
    pub(crate) refresh: u64,
    /// The node stops: end what runs within this time, leave the object alone.
    pub(crate) stop: Option<Duration>,
}

/// Logs of one pod, for readers outside of the worker.
#[derive(Debug, Default)]
pub(crate) struct PodLogs {
    /// In the Pod's order.
    pub(crate) containers: Vec<(String, ContainerLogs)>,
}

/// Logs of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerLogs {
    pub(crate) proxy: bool,
    pub(crate) init: bool,
    pub(crate) current: Option<Arc<Log>>,
    pub(crate) previous: Option<Arc<Log>>,
    pub(crate) waiting: String,
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
    Found {
        index: usize,
        attempt: u32,
        finding: Finding,
    },
    PostStartFailed {
        index: usize,
        attempt: u32,
        message: String,
    },
    Drained,
}

/// A container's process and what belongs to it.
struct Live {
    container: Arc<Container>,
    stop_signal: i32,
    target: Target,
    probes: Tasks,
    /// Holds the image's layers.
    _image: Arc<kinglet_image::ReadyImage>,
}

/// Ending a pod.
struct Stopping {
    /// When patience ends.
    deadline: Instant,
    /// SIGTERM has been sent.
    asked: bool,
    killed: bool,
    /// The node stops; the API is left alone.
    quietly: bool,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    signal: watch::Receiver<Signal>,
    logs: Arc<Mutex<PodLogs>>,
    pod: Arc<Pod>,
    gone: bool,
    states: Vec<ContainerState>,
    live: HashMap<usize, Live>,
    sandbox: SharedSandbox,
    directories: PodDirectories,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    tasks: Tasks,
    start_time: Timestamp,
    stopping: Option<Stopping>,
    finished: Option<bool>,
    written: Option<PodStatus>,
    report_at: Option<Instant>,
    refresh_at: Instant,
    refreshed: u64,
    proxy_probe: Option<Tasks>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        signal: watch::Receiver<Signal>,
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
        logs.lock().containers = states
            .iter()
            .map(|state| {
                (
                    state.name.clone(),
                    ContainerLogs {
                        proxy: state.role == Role::Proxy,
                        init: matches!(state.role, Role::Init | Role::Sidecar),
                        waiting: "ContainerCreating".to_owned(),
                        ..Default::default()
                    },
                )
            })
            .collect();
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let directories = PodDirectories::new(&shared.options.data_dir, uid(&pod));
        let start_time = shared.context().now();
        let refreshed = signal.borrow().refresh;
        Self {
            shared,
            signal,
            logs,
            pod,
            gone: false,
            states,
            live: HashMap::new(),
            sandbox: SharedSandbox::default(),
            directories,
            sender,
            messages,
            tasks,
            start_time,
            stopping: None,
            finished: None,
            written: None,
            report_at: None,
            refresh_at: Instant::now() + REFRESH_PERIOD,
            refreshed,
            proxy_probe: None,
        }
    }

    /// Runs until the pod is gone and nothing of it is left.
    pub(crate) async fn run(mut self) {
        tracing::debug!(
            pod = self.pod.metadata.name,
            uid = uid(&self.pod),
            "pod is taken in"
        );
        loop {
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
                self.stopping
                    .as_ref()
                    .filter(|stopping| !stopping.killed)
                    .map(|stopping| stopping.deadline),
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
                        self.begin_stop(Duration::ZERO, true);
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
                    let seconds = self
                        .pod
                        .metadata
                        .deletion_grace_period_seconds
                        .unwrap_or(30);
                    self.begin_stop(
                        Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
                        false,
                    );
                }
            }
            None => {
                self.gone = true;
                self.begin_stop(Duration::ZERO, true);
            }
        }
        if let Some(grace) = signal.stop {
            self.begin_stop(grace, true);
        }
        if signal.refresh != self.refreshed {
            self.refreshed = signal.refresh;
            self.refresh_at = self.refresh_at.min(Instant::now() + REFRESH_DELAY);
        }
    }

    /// Starts what is due; gives when to look again.
    fn decide(&mut self) -> Option<Instant> {
        if self.stopping.is_some() || self.finished.is_some() {
            self.stop_further();
            return None;
        }
        let policy = RestartPolicy::parse(
            self.pod
                .spec
                .as_ref()
                .and_then(|spec| spec.restart_policy.as_deref()),
        );
        let now = self.shared.context().now();
        let next = lifecycle::next(&self.states, policy, now);
        for index in next.start {
            self.start(index, now);
        }
        if let Some(well) = next.finished {
            self.finish(well);
            return None;
        }
        next.wake.map(|at| {
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Instant::now() + left + Duration::from_millis(1)
        })
    }

    fn start(&mut self, index: usize, now: Timestamp) {
        let proxied = self.is_proxied();
        let state = &mut self.states[index];
        if state.role == Role::Proxy {
            state.stage = Stage::Running { since: now };
            state.container_id = container_id(uid(&self.pod), &state.name, 0);
            state.image_id = state.image.clone();
            for (reason, message) in [
                ("Created", "Created container: queue-proxy"),
                ("Started", "Started container queue-proxy"),
            ] {
                self.shared.event(
                    &self.pod,
                    Some(container_state::QUEUE_PROXY),
                    Severity::Normal,
                    reason,
                    message,
                );
            }
            self.report_soon();
            self.watch_proxy();
            return;
        }
        if let Stage::Ended(ending) = &state.stage {
            state.last = Some(ending.clone());
            state.restarts += 1;
        }
        if !matches!(state.stage, Stage::Created) {
            state.attempt += 1;
        }
        state.stage = Stage::Starting;
        let (name, attempt) = (state.name.clone(), state.attempt);
        let (shared, pod, sandbox, sender) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.pod),
            Arc::clone(&self.sandbox),
            self.sender.clone(),
        );
        // Cancelled half way, or with nobody to hear the answer, what was started is dropped and dies.
        self.tasks.spawn_cancellable("container start", async move {
            let result = Box::new(start::container(&shared, &pod, &name, attempt, &sandbox).await);
            let _ = sender
                .send(Message::Started {
                    index,
                    attempt,
                    result,
                })
                .await;
        });
        if !proxied || self.written.is_some() {
            self.report_soon();
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
            Message::Found {
                index,
                attempt,
                finding,
            } => {
                if self.states[index].attempt == attempt {
                    self.found(index, finding);
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
                    self.kill(index, "failed postStart hook");
                }
            }
            Message::Drained => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.asked = true;
                    self.ask_all_to_end();
                }
            }
        }
    }

    /// A container runs.
    fn begin(&mut self, index: usize, attempt: u32, started: Started) {
        let Started {
            running,
            image,
            process,
            stop_signal,
        } = started;
        let now = self.shared.context().now();
        let Some(sandbox) = self.sandbox.get().cloned() else {
            return;
        };
        let state = &mut self.states[index];
        tracing::debug!(
            pod = self.pod.metadata.name,
            container = state.name,
            attempt,
            "container runs"
        );
        state.stage = Stage::Running { since: now };
        state.image_id.clone_from(&image.digest);
        state.container_id = container_id(uid(&self.pod), &state.name, attempt);
        state.failures = 0;
        state.complaint = None;
        state.started = state.started.map(|_| false);
        state.passed = if state.role == Role::Proxy {
            state.passed
        } else {
            state.passed.map(|_| false)
        };
        let name = state.name.clone();
        let path = self
            .directories
            .disk
            .join("logs")
            .join(&name)
            .join(format!("{attempt}.log"));
        let log = match Log::create(path) {
            Ok(log) => Some(Arc::new(log)),
            Err(error) => {
                tracing::warn!(pod = self.pod.metadata.name, container = name, %error, "no log can be kept");
                None
            }
        };
        self.keep_log(&name, log.clone());
        let crate::container::Running {
            process: container,
            stdout,
            stderr,
        } = running;
        if let Some(log) = &log {
            self.tasks.spawn(
                "container log",
                crate::logs::write::run(
                    Arc::clone(log),
                    stdout,
                    stderr,
                    self.shared.context().clock().clone(),
                ),
            );
        }
        self.await_exit(index, attempt, Arc::clone(&container), log);
        let target = Target {
            engine: self.shared.engine.clone(),
            sandbox: Arc::clone(&sandbox.namespaces),
            container: Some(Arc::clone(&container)),
            process: Some(process),
        };
        let live = Live {
            container,
            stop_signal,
            target,
            probes: self.tasks.child(),
            _image: image,
        };
        self.live.insert(index, live);
        self.report_soon();
        if self.stopping.is_some() || self.finished.is_some() {
            self.kill(index, "the pod is ending");
            return;
        }
        self.after_start(index, attempt);
        self.watch(index, attempt);
    }

    fn keep_log(&self, name: &str, log: Option<Arc<Log>>) {
        let mut logs = self.logs.lock();
        if let Some((_, kept)) = logs.containers.iter_mut().find(|(known, _)| known == name) {
            kept.previous = kept.current.take();
            kept.current = log;
        }
    }

    fn await_exit(
        &self,
        index: usize,
        attempt: u32,
        container: Arc<Container>,
        log: Option<Arc<Log>>,
    ) {
        let Some(spec) = container_state::container(&self.pod, &self.states[index].name) else {
            return;
        };
        let from_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let file = self
            .directories
            .termination_log(&self.states[index].name, attempt);
        let sender = self.sender.clone();
        self.tasks.spawn("container exit", async move {
            let exit = container.wait().await;
            let out_of_memory = exit != Exit::Code(0) && container.was_out_of_memory();
            let mut last_words = read_bounded(&file, LAST_WORDS_BYTES_MAX);
            if last_words.is_empty()
                && from_log
                && exit != Exit::Code(0)
                && let Some(log) = log
            {
                let mut state = log.state();
                let _ = tokio::time::timeout(LOG_END_TIMEOUT, state.wait_for(|state| state.ended))
                    .await;
                last_words = log.tail(LAST_WORDS_LINES_MAX, LAST_WORDS_FROM_LOG_BYTES_MAX);
            }
            let _ = sender
                .send(Message::Exited {
                    index,
                    attempt,
                    exit,
                    out_of_memory,
                    last_words,
                })
                .await;
        });
    }

    fn after_start(&self, index: usize, attempt: u32) {
        let Some(container) = container_state::container(&self.pod, &self.states[index].name)
        else {
            return;
        };
        let Some(handler) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return;
        };
        let hook = hooks::of(handler, container, false);
        let Some(live) = self.live.get(&index) else {
            return;
        };
        let (target, sender) = (live.target.clone(), self.sender.clone());
        live.probes.spawn_cancellable("postStart hook", async move {
            let result = match hook {
                Ok(Some(hook)) => hooks::run(hook, &target, Duration::from_secs(3600)).await,
                Ok(None) => Ok(()),
                Err(message) => Err(message),
            };
            if let Err(message) = result {
                let _ = sender
                    .send(Message::PostStartFailed {
                        index,
                        attempt,
                        message,
                    })
                    .await;
            }
        });
    }

    /// Starts the probes of a container: the startup probe alone at first.
    fn watch(&mut self, index: usize, attempt: u32) {
        let Some(container) = container_state::container(&self.pod, &self.states[index].name)
        else {
            return;
        };
        let plans = match probe::plan::of(container) {
            Ok(plans) => plans,
            Err(message) => {
                self.shared.event(
                    &self.pod,
                    Some(&container.name),
                    Severity::Warning,
                    "Unhealthy",
                    message,
                );
                return;
            }
        };
        let waits_for_startup = self.states[index].started == Some(false);
        let Some(live) = self.live.get(&index) else {
            return;
        };
        for plan in plans
            .into_iter()
            .filter(|plan| (plan.purpose == Purpose::Startup) == waits_for_startup)
        {
            let tell = move |finding| Message::Found {
                index,
                attempt,
                finding,
            };
            live.probes.spawn_cancellable(
                "probe",
                probe::watch::run(plan, live.target.clone(), self.sender.clone(), tell),
            );
        }
        self.watch_proxy();
    }

    /// Asks the questions of the queue-proxy, once it "runs" and there is a pod to ask.
    fn watch_proxy(&mut self) {
        let Some(index) = self
            .states
            .iter()
            .position(|state| state.role == Role::Proxy)
        else {
            return;
        };
        if self.proxy_probe.is_some() || !self.states[index].is_running() {
            return;
        }
        let Some(sandbox) = self.sandbox.get().cloned() else {
            return;
        };
        if !self
            .states
            .iter()
            .any(|state| state.role == Role::App && state.is_running())
        {
            return;
        }
        let Some(container) = container_state::container(&self.pod, container_state::QUEUE_PROXY)
        else {
            return;
        };
        let variables = container.env.iter().flatten();
        let encoded = variables
            .filter(|variable| variable.name == "SERVING_READINESS_PROBE")
            .find_map(|variable| variable.value.as_deref());
        let attempt = self.states[index].attempt;
        let probe = self.tasks.child();
        match probe::plan::of_queue_proxy(container, encoded) {
            Ok(Some(plan)) => {
                let target = Target {
                    engine: self.shared.engine.clone(),
                    sandbox: Arc::clone(&sandbox.namespaces),
                    container: None,
                    process: None,
                };
                let tell = move |finding| Message::Found {
                    index,
                    attempt,
                    finding,
                };
                probe.spawn_cancellable(
                    "readiness",
                    probe::watch::run(plan, target, self.sender.clone(), tell),
                );
            }
            Ok(None) => self.states[index].passed = Some(true),
            Err(message) => self.shared.event(
                &self.pod,
                Some(container_state::QUEUE_PROXY),
                Severity::Warning,
                "Unhealthy",
                message,
            ),
        }
        self.proxy_probe = Some(probe);
    }

    fn found(&mut self, index: usize, finding: Finding) {
        let name = self.states[index].name.clone();
        match finding {
            Finding::Complaint(purpose, message) => {
                if self.stopping.is_none() {
                    let text = format!("{} probe failed: {message}", purpose.name());
                    if self.states[index].complaint.as_ref() != Some(&text) {
                        self.states[index].complaint = Some(text.clone());
                        self.report_soon();
                    }
                    self.shared
                        .event(&self.pod, Some(&name), Severity::Warning, "Unhealthy", text);
                }
            }
            Finding::OnlyInside(port) => {
                self.shared.event(
                    &self.pod,
                    Some(&name),
                    Severity::Normal,
                    "LoopbackOnly",
                    format!(
                        "the program listens on 127.0.0.1:{port} only; requests are carried there"
                    ),
                );
                if let Some(sandbox) = self.sandbox.get().cloned() {
                    let tasks = self.tasks.clone();
                    self.tasks.spawn_cancellable("loopback bridge", async move {
                        if let Err(error) = connect::bridge(&sandbox.namespaces, port, &tasks).await {
                            tracing::warn!(port, %error, "a program that listens on loopback only cannot be reached");
                        }
                    });
                }
            }
            Finding::Verdict(purpose, verdict, message) => {
                self.judged(index, purpose, verdict, &message)
            }
        }
    }

    fn judged(&mut self, index: usize, purpose: Purpose, verdict: Verdict, message: &str) {
        let state = &mut self.states[index];
        let attempt = state.attempt;
        tracing::debug!(
            pod = self.pod.metadata.name,
            container = state.name,
            ?purpose,
            ?verdict,
            message,
            "probe"
        );
        if verdict == Verdict::Passed {
            state.complaint = None;
        }
        match (purpose, verdict) {
            (Purpose::Readiness, verdict) => {
                let draining = self.stopping.is_some() && state.role == Role::Proxy;
                state.passed = Some(verdict == Verdict::Passed && !draining);
                self.report_soon();
            }
            (Purpose::Startup, Verdict::Passed) => {
                state.started = Some(true);
                self.report_soon();
                self.watch(index, attempt);
            }
            (Purpose::Startup, Verdict::Failed) => {
                self.kill(index, "failed startup probe, will be restarted")
            }
            (Purpose::Liveness, Verdict::Failed) => {
                self.kill(index, "failed liveness probe, will be restarted")
            }
            (Purpose::Liveness, Verdict::Passed) => {}
        }
    }

    /// Ends one container whose pod goes on (or that came too late); SIGTERM first, SIGKILL after the pod's grace.
    fn kill(&mut self, index: usize, why: &str) {
        let Some(live) = self.live.get(&index) else {
            return;
        };
        let name = &self.states[index].name;
        self.shared.event(
            &self.pod,
            Some(name),
            Severity::Normal,
            "Killing",
            format!("Container {name} {why}"),
        );
        live.probes.cancel();
        let grace = if self.stopping.is_some() {
            Duration::ZERO
        } else {
            self.grace()
        };
        let (container, signal) = (Arc::clone(&live.container), live.stop_signal);
        self.tasks.spawn("container kill", async move {
            if !grace.is_zero() {
                let _ = container.terminate(signal);
                if tokio::time::timeout(grace, container.wait()).await.is_ok() {
                    return;
                }
            }
            let _ = container.kill();
        });
    }

    fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// A container did not begin.
    fn start_failed(&mut self, index: usize, error: ContainerStartError) {
        let now = self.shared.context().now();
        let state = &mut self.states[index];
        tracing::debug!(
            pod = self.pod.metadata.name,
            container = state.name,
            reason = error.reason,
            message = error.message,
            "container not started"
        );
        if error.crashed {
            state.crashes += 1;
            state.container_id = container_id(uid(&self.pod), &state.name, state.attempt);
            state.stage = Stage::Ended(Ending {
                code: 128,
                signal: None,
                reason: error.reason,
                message: error.message,
                started_at: None,
                finished_at: now,
                container_id: state.container_id.clone(),
            });
            self.tell_back_off(index, now);
        } else {
            state.failures += 1;
            let mut delay = backoff::after_failure(state.failures);
            // The machine or a missing object: looked at again soon, as a kubelet's sync does.
            if matches!(
                error.reason,
                "ContainerCreating" | "CreateContainerConfigError" | "CreateContainerError"
            ) {
                delay = delay.min(Duration::from_secs(2));
            }
            if matches!(error.reason, "ErrImagePull") {
                let image = &self.states[index].image;
                self.shared.event(
                    &self.pod,
                    Some(&self.states[index].name),
                    Severity::Normal,
                    "BackOff",
                    format!("Back-off pulling image {image:?}"),
                );
                self.shared.event(
                    &self.pod,
                    Some(&self.states[index].name),
                    Severity::Warning,
                    "Failed",
                    "Error: ImagePullBackOff",
                );
            }
            self.states[index].stage = Stage::StartFailed {
                reason: error.reason,
                message: error.message,
                since: now,
                until: later(now, delay),
            };
        }
        self.report_soon();
    }

    /// A container ended.
    fn ended(&mut self, index: usize, exit: Exit, out_of_memory: bool, last_words: String) {
        self.live.remove(&index);
        let now = self.shared.context().now();
        let state = &mut self.states[index];
        let since = if let Stage::Running { since } = state.stage {
            Some(since)
        } else {
            None
        };
        let ran = since.map_or(Duration::ZERO, |since| {
            Duration::try_from(now.duration_since(since)).unwrap_or_default()
        });
        state.crashes = if ran >= backoff::FORGIVEN_AFTER {
            1
        } else {
            state.crashes + 1
        };
        let code = exit.code();
        state.stage = Stage::Ended(Ending {
            code,
            signal: if let Exit::Signal(signal) = exit {
                Some(signal)
            } else {
                None
            },
            reason: if out_of_memory {
                "OOMKilled"
            } else if code == 0 {
                "Completed"
            } else {
                "Error"
            },
            message: last_words,
            started_at: since,
            finished_at: now,
            container_id: state.container_id.clone(),
        });
        if self.stopping.is_none() && self.finished.is_none() {
            // The queue-proxy's answer was about a program that is gone; the next one is asked anew, and eagerly.
            if let Some(probe) = self.proxy_probe.take() {
                probe.cancel();
                for proxy in self
                    .states
                    .iter_mut()
                    .filter(|state| state.role == Role::Proxy)
                {
                    proxy.passed = Some(false);
                    proxy.complaint = None;
                    proxy.attempt += 1;
                }
                self.watch_proxy();
            }
            if code != 0 {
                self.tell_back_off(index, now);
            }
        }
        let directory = self
            .directories
            .container(&self.states[index].name, self.states[index].attempt);
        self.tasks.spawn("container files", async move {
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
        });
        self.report_soon();
    }

    fn tell_back_off(&self, index: usize, now: Timestamp) {
        let state = &self.states[index];
        if let Stage::Ended(ending) = &state.stage
            && lifecycle::restart_at(state, ending) > now
        {
            let text = format!(
                "Back-off restarting failed container {} in pod {}",
                state.name,
                crate::pod::status::full_name(&self.pod)
            );
            self.shared.event(
                &self.pod,
                Some(&state.name),
                Severity::Warning,
                "BackOff",
                text,
            );
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
        if self.stopping.is_some() || self.finished.is_some() {
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

/// A stable, unique id: 64 hexadecimal digits as everywhere.
fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    let digest = Sha256::digest(format!("{uid}/{name}/{attempt}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kinglet://{hex}")
}

fn read_bounded(path: &std::path::Path, bytes_max: usize) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(bytes_max as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
