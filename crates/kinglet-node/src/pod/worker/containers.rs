//! What becomes of one container of the pod: it runs, it ends, or it did not start.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_reconcile::Severity;
use sha2::{Digest as _, Sha256};
use tokio::net::unix::pipe;

use super::{Message, REFRESH_DELAY, RunningContainer, SOURCES_SETTLE, Worker};
use crate::container::Container;
use crate::engine::Sandbox;
use crate::logs::Log;
use crate::pod::backoff;
use crate::pod::container_state::{self, Role, Stage, Terminated};
use crate::pod::lifecycle::{self, later};
use crate::pod::start::{ContainerStartError, NODE_PORTS, Started, uid};
use crate::probe::prober::ProbeTarget;
use crate::session::attach::{RunningProgram, Stdin};
use crate::session::output::Output;
use crate::session::{Source, Terminal};
use crate::sys::process::Exit;
use crate::volumes::disk;
use crate::wire::Process;

/// What is kept of a container's last words (Kubernetes' bounds).
const LAST_WORDS_BYTES_MAX: usize = 4096;

const LAST_WORDS_LINES_MAX: usize = 80;

const LAST_WORDS_FROM_LOG_BYTES_MAX: usize = 2048;

/// After its end a container's pipes may still be held by nobody; the log is complete when they close.
const LOG_END_TIMEOUT: Duration = Duration::from_millis(500);

/// A program that was started, with the ends of its streams.
struct Connected {
    running: crate::container::Running,
    process: Process,
    stdin: Option<pipe::Sender>,
    sandbox: Arc<Sandbox>,
}

impl Worker {
    /// A container runs.
    pub(super) fn begin(&mut self, index: usize, attempt: u32, started: Started) {
        let Started {
            running,
            image,
            process,
            stop_signal,
            stdin,
        } = started;
        let Some(sandbox) = self.sandbox.get().cloned() else {
            return;
        };
        self.note_running(index, attempt, &image);
        let name = self.states[index].name.clone();
        let container = Arc::clone(&running.process);
        let connected = Connected {
            running,
            process: process.clone(),
            stdin,
            sandbox: Arc::clone(&sandbox.namespaces),
        };
        let log = self.follow_output(&name, attempt, connected);
        self.await_exit(index, attempt, Arc::clone(&container), log);
        let target = ProbeTarget {
            engine: self.shared.engine.clone(),
            sandbox: Arc::clone(&sandbox.namespaces),
            container: Some(Arc::clone(&container)),
            process: Some(process),
            egress: self.shared.egress.clone(),
        };
        let running = RunningContainer {
            container,
            stop_signal,
            target,
            probes: self.tasks.child(),
            _image: image,
        };
        self.running.insert(index, running);
        self.report_soon();
        if self.termination.is_some() || self.finished.is_some() {
            self.kill(index, "is stopped with its pod", None);
            return;
        }
        self.after_start(index, attempt);
        self.start_probes(index, attempt);
    }

    /// Writes down that a container runs.
    fn note_running(&mut self, index: usize, attempt: u32, image: &kinglet_image::ReadyImage) {
        let now = self.shared.context().now();
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
        state.probe_failure = None;
        state.started = state.started.map(|_| false);
        state.probe_ready = if state.role == Role::Proxy {
            state.probe_ready
        } else {
            state.probe_ready.map(|_| false)
        };
    }

    /// Has what a container writes kept in its log, and passed on to clients that are attached.
    fn follow_output(&self, name: &str, attempt: u32, connected: Connected) -> Option<Arc<Log>> {
        let Connected {
            running,
            process,
            stdin,
            sandbox,
        } = connected;
        let path = self
            .directories
            .logs()
            .join(name)
            .join(format!("{attempt}.log"));
        let log = match Log::create(path) {
            Ok(log) => Some(Arc::new(log)),
            Err(error) => {
                tracing::warn!(pod = self.pod.metadata.name, container = name, %error, "no log can be kept");
                None
            }
        };
        let crate::container::Running {
            process: container,
            stdout,
            stderr,
            terminal,
        } = running;
        let terminal = terminal.and_then(|terminal| match open_terminal(terminal) {
            Ok(opened) => Some(opened),
            Err(error) => {
                tracing::warn!(pod = self.pod.metadata.name, container = name, %error, "a terminal cannot be read");
                None
            }
        });
        let (terminal, stdout): (_, Source) = match terminal {
            Some((terminal, stream)) => (Some(terminal), stream),
            None => (None, Box::new(stdout)),
        };
        let output = Arc::<Output>::default();
        let once = container_state::container(&self.pod, name)
            .is_some_and(|container| container.stdin_once == Some(true));
        let program = RunningProgram {
            container,
            process,
            stdin: stdin.map(|stdin| Arc::new(Stdin::new(stdin, once))),
            terminal,
            output: Arc::clone(&output),
            sandbox,
        };
        self.keep_log(name, log.clone(), program);
        if let Some(log) = &log {
            let work = crate::logs::write::run(
                Arc::clone(log),
                stdout,
                Box::new(stderr),
                output,
                self.shared.context().clock().clone(),
            );
            self.tasks
                .spawn("container log", self.watched("container log", work));
        }
        log
    }

    fn keep_log(&self, name: &str, log: Option<Arc<Log>>, program: RunningProgram) {
        let mut logs = self.logs.lock();
        if let Some((_, kept)) = logs.containers.iter_mut().find(|(known, _)| known == name) {
            kept.previous = kept.current.take();
            kept.current = log;
            kept.running = Some(program);
        }
    }

    /// Nobody can talk to a container that has ended.
    fn forget_program(&self, name: &str) {
        let mut logs = self.logs.lock();
        if let Some((_, kept)) = logs.containers.iter_mut().find(|(known, _)| known == name) {
            kept.running = None;
        }
    }

    pub(super) fn await_exit(
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
        let work = self.watched("container exit", async move {
            let exit = container.wait().await;
            let out_of_memory = exit != Exit::Code(0) && container.was_out_of_memory();
            // Whoever reads of the exit may read the log next: all that the program wrote is in it by then.
            if let Some(log) = &log {
                let mut state = log.state();
                let _ = tokio::time::timeout(LOG_END_TIMEOUT, state.wait_for(|state| state.ended))
                    .await;
            }
            let mut last_words = disk::read_termination_log(&file, LAST_WORDS_BYTES_MAX);
            if last_words.is_empty()
                && from_log
                && exit != Exit::Code(0)
                && let Some(log) = log
            {
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
        self.tasks.spawn("container exit", work);
    }

    /// Ends a Pod for good that this node cannot take.
    fn reject(&mut self, reason: &'static str, message: String) {
        if self.termination.is_some() || self.finished.is_some() {
            return;
        }
        self.failure = Some((reason, format!("Pod was rejected: {message}")));
        self.shared
            .event(&self.pod, None, Severity::Warning, reason, message);
        self.finish(false);
    }

    /// A container did not begin.
    pub(super) fn start_failed(&mut self, index: usize, error: ContainerStartError) {
        if error.reason == NODE_PORTS {
            self.reject(error.reason, error.message);
            return;
        }
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
            state.stage = Stage::Terminated(Terminated {
                code: 128,
                signal: None,
                reason: error.reason,
                message: error.message,
                started_at: None,
                finished_at: now,
                container_id: state.container_id.clone(),
            });
            self.record_back_off(index, now);
        } else {
            state.failures += 1;
            let mut delay = backoff::after_failure(state.failures);
            // The machine or a missing object: looked at again soon, as a kubelet's sync does.
            if matches!(
                error.reason,
                "ContainerCreating" | "CreateContainerConfigError" | "CreateContainerError"
            ) {
                delay = delay.min(Duration::from_secs(2));
                // The change may have come while this start was under way.
                if self
                    .sources_changed_at
                    .is_some_and(|at| at.elapsed() < SOURCES_SETTLE)
                {
                    delay = delay.min(REFRESH_DELAY);
                }
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
    pub(super) fn ended(
        &mut self,
        index: usize,
        exit: Exit,
        out_of_memory: bool,
        last_words: String,
    ) {
        self.running.remove(&index);
        self.forget_program(&self.states[index].name);
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
        state.stage = Stage::Terminated(Terminated {
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
        if self.termination.is_none() && self.finished.is_none() {
            self.probe_proxy_anew();
            if code != 0 {
                self.record_back_off(index, now);
            }
        }
        let (name, attempt) = (self.states[index].name.clone(), self.states[index].attempt);
        let (directories, trash) = (self.directories.clone(), Arc::clone(&self.shared.trash));
        self.tasks.spawn("container files", async move {
            let work = move || disk::remove_container(&directories, &trash, &name, attempt);
            let _ = tokio::task::spawn_blocking(work).await;
        });
        self.report_soon();
    }

    /// The queue-proxy's answer was about a program that is gone; the next one is asked anew, and eagerly.
    fn probe_proxy_anew(&mut self) {
        let Some(probe) = self.proxy_probe.take() else {
            return;
        };
        probe.cancel();
        for proxy in self
            .states
            .iter_mut()
            .filter(|state| state.role == Role::Proxy)
        {
            proxy.probe_ready = Some(false);
            proxy.probe_failure = None;
            proxy.attempt += 1;
        }
        self.start_proxy_probe();
    }

    pub(super) fn record_back_off(&self, index: usize, now: Timestamp) {
        let state = &self.states[index];
        if let Stage::Terminated(terminated) = &state.stage
            && lifecycle::restart_at(state, terminated) > now
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
}

/// A container's terminal, and what the container writes there.
fn open_terminal(multiplexer: OwnedFd) -> io::Result<(Terminal, Source)> {
    let terminal = Terminal::new(multiplexer)?;
    let stream = terminal.stream()?;
    Ok((terminal, Box::new(stream)))
}

/// A stable, unique id: 64 hexadecimal digits as everywhere.
pub(super) fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    let digest = Sha256::digest(format!("{uid}/{name}/{attempt}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kinglet://{hex}")
}
