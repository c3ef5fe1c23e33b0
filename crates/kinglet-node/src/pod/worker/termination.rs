//! Ending a pod: drain and hooks, SIGTERM, patience, SIGKILL, and leaving nothing behind.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kinglet_quantity::pod::TERMINATION_GRACE_SECONDS;
use kinglet_reconcile::{ReconcileError, Severity};
use serde_json::json;
use tokio::time::Instant;

use super::{Message, PodTermination, Worker};
use crate::pod::container_state::{self, Role, Stage, Terminated};
use crate::pod::hooks::{self, Hook};
use crate::pod::start::{Shared, uid};
use crate::probe::prober::ProbeTarget;
use crate::volumes::disk;

/// A pod's tasks end with its processes; this is for a machine that is stuck.
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);
/// The last write of a pod is tried so often.
const DELETE_ATTEMPTS: u32 = 5;
/// What containers are given between SIGTERM and SIGKILL when drain and hooks used the grace period up (a kubelet's number).
const GRACE_AFTER_HOOKS: Duration = Duration::from_secs(2);
/// More than anybody waits, and little enough for a clock to add up: a pod may ask for 292 thousand million years.
const GRACE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Hooks after the start have no bound of their own in Kubernetes; a pod that waits longer is better started anew.
const POST_START_TIMEOUT: Duration = Duration::from_secs(3600);

impl Worker {
    /// Begins to end, or shortens the patience of a termination that has begun.
    pub(super) fn begin_termination(&mut self, grace: Duration, leave_object: bool) {
        let grace = grace.min(GRACE_MAX);
        let deadline = Instant::now() + grace;
        if let Some(termination) = &mut self.termination {
            termination.leave_object |= leave_object;
            if deadline < termination.deadline {
                termination.deadline = deadline;
            }
            return;
        }
        self.termination = Some(PodTermination {
            deadline,
            asked: false,
            killed: false,
            leave_object,
        });
        for index in 0..self.states.len() {
            if self.states[index].is_running() && self.finished.is_none() {
                let name = self.states[index].name.clone();
                if !leave_object {
                    self.shared.event(
                        &self.pod,
                        Some(&name),
                        Severity::Normal,
                        "Killing",
                        format!("Stopping container {name}"),
                    );
                }
                if self.states[index].role == Role::Proxy {
                    self.states[index].probe_ready = Some(false);
                }
            }
        }
        self.report_soon();
        self.run_hooks(grace);
    }

    /// Drain, then every container's own hook at once; then they are asked to end.
    fn run_hooks(&mut self, grace: Duration) {
        let proxied = self.states.iter().any(|state| state.role == Role::Proxy);
        let mut all = Vec::new();
        for (index, running) in &self.running {
            running.probes.cancel();
            if let Some(hook) = hooks::pre_stop(&self.pod, &self.states[*index].name, proxied)
                && hook != Hook::Drain
            {
                all.push((
                    self.states[*index].name.clone(),
                    hook,
                    running.target.clone(),
                ));
            }
        }
        let address = self.sandbox().map(|sandbox| sandbox.namespaces.address());
        let drains = proxied && !self.running.is_empty() && !grace.is_zero();
        if (all.is_empty() && !drains) || grace.is_zero() {
            if let Some(termination) = &mut self.termination {
                termination.asked = true;
            }
            self.terminate_all();
            return;
        }
        let (drain, sender) = (Arc::clone(&self.shared.options.drain), self.sender.clone());
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        let work = self.watched("preStop", async move {
            let work = async {
                if let Some(address) = address.filter(|_| drains) {
                    drain(address.into()).await;
                }
                let hooks = all.iter().map(|(name, hook, target)| {
                    run_pre_stop(&shared, &pod, name, hook.clone(), target, grace)
                });
                futures_util::future::join_all(hooks).await;
            };
            let _ = tokio::time::timeout(grace, work).await;
            let _ = sender.send(Message::Drained).await;
        });
        self.tasks.spawn_cancellable("preStop", work);
    }

    pub(super) fn terminate_all(&self) {
        for running in self.running.values() {
            if let Err(error) = running.container.terminate(running.stop_signal) {
                tracing::debug!(%error, "a container could not be asked to end");
            }
        }
    }

    /// Requests have drained and hooks have run, or time was up: containers are asked to end, and always have a moment for it.
    pub(super) fn drained(&mut self) {
        let Some(termination) = &mut self.termination else {
            return;
        };
        termination.asked = true;
        if !termination.leave_object {
            termination.deadline = termination.deadline.max(Instant::now() + GRACE_AFTER_HOOKS);
        }
        self.terminate_all();
    }

    /// SIGKILL when patience is over.
    pub(super) fn kill_when_due(&mut self) {
        let Some(termination) = &mut self.termination else {
            return;
        };
        if termination.killed || Instant::now() < termination.deadline {
            return;
        }
        termination.killed = true;
        termination.asked = true;
        for running in self.running.values() {
            let _ = running.container.kill();
        }
    }

    /// Nothing will run any more, without anybody having asked for it.
    pub(super) fn finish(&mut self, well: bool) {
        self.finished = Some(well);
        let now = self.shared.context().now();
        for running in self.running.values() {
            running.probes.cancel();
            let _ = running.container.kill();
        }
        // The binder gives them to others from now on.
        if let Some(sandbox) = self.sandbox() {
            sandbox.host_ports.lock().take();
        }
        self.terminate_proxy(now);
        self.report_now();
    }

    /// Members without a process are over, too.
    fn terminate_proxy(&mut self, now: jiff::Timestamp) {
        for state in &mut self.states {
            if state.role == Role::Proxy
                && let Stage::Running { since } = state.stage
            {
                state.stage = Stage::Terminated(Terminated {
                    code: 0,
                    signal: None,
                    reason: "Completed",
                    message: String::new(),
                    started_at: Some(since),
                    finished_at: now,
                    container_id: state.container_id.clone(),
                });
                state.probe_ready = Some(false);
            }
        }
    }

    /// Whether everything has ended and the worker may leave.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(termination) = &self.termination else {
            return false;
        };
        let leave_object = termination.leave_object;
        // What is only being started is dropped with its task.
        if !self.running.is_empty() {
            return false;
        }
        // A pod that was ended by its deadline stays to be looked at until somebody deletes it.
        let stays = self.failure.is_some()
            && !leave_object
            && self.pod.metadata.deletion_timestamp.is_none();
        if stays && self.finished.is_some() {
            return false;
        }
        if self.finished.is_none() && !leave_object {
            let now = self.shared.context().now();
            self.terminate_proxy(now);
            let well = self
                .states
                .iter()
                .filter(|state| state.role == Role::App)
                .all(|state| match &state.stage {
                    Stage::Terminated(terminated) => terminated.code == 0,
                    _ => true,
                });
            self.finished = Some(well && self.failure.is_none());
            self.report_now();
            return false;
        }
        true
    }

    /// Gives back everything, then lets the object go.
    pub(super) async fn leave(mut self) {
        let delete = !self.gone && self.pod.metadata.deletion_timestamp.is_some();
        self.running.clear();
        for (_, kept) in &mut self.logs.lock().containers {
            kept.running = None;
        }
        self.messages.close();
        self.tasks.shutdown(TASKS_TIMEOUT).await;
        self.queue_proxy = None;
        drop(std::mem::take(&mut self.sandbox));
        if delete {
            self.delete().await;
        }
        let (directories, trash) = (self.directories.clone(), Arc::clone(&self.shared.trash));
        let _ = tokio::task::spawn_blocking(move || disk::remove(&directories, &trash)).await;
    }

    async fn delete(&self) {
        let meta = &self.pod.metadata;
        let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else {
            return;
        };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid(&self.pod)}});
        for attempt in 1..=DELETE_ATTEMPTS {
            match self
                .shared
                .context()
                .call(Method::DELETE, &path, Some(&body))
                .await
            {
                Ok(_) | Err(ReconcileError::NotFound { .. } | ReconcileError::Conflict { .. }) => {
                    return;
                }
                Err(error) => {
                    tracing::debug!(pod = name, %error, attempt, "a pod that has ended could not be deleted");
                    tokio::time::sleep(Duration::from_millis(100) * attempt).await;
                }
            }
        }
        tracing::warn!(
            pod = name,
            namespace,
            "a pod that has ended stays in the API until Kinglet starts again"
        );
    }

    pub(super) fn after_start(&self, index: usize, attempt: u32) {
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
        let Some(running) = self.running.get(&index) else {
            return;
        };
        let (target, sender) = (running.target.clone(), self.sender.clone());
        let work = self.watched("postStart hook", async move {
            let result = match hook {
                Ok(Some(hook)) => hooks::run(hook, &target, POST_START_TIMEOUT).await,
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
        running.probes.spawn_cancellable("postStart hook", work);
    }

    /// Ends one container whose pod goes on (or that came too late); SIGTERM first, SIGKILL after the pod's grace.
    pub(super) fn kill(&mut self, index: usize, why: &str, grace: Option<Duration>) {
        let Some(running) = self.running.get(&index) else {
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
        running.probes.cancel();
        let grace = if self.termination.is_some() {
            Duration::ZERO
        } else {
            grace.unwrap_or_else(|| self.grace())
        };
        let (container, signal) = (Arc::clone(&running.container), running.stop_signal);
        // The drain hook is about a pod that goes; this one stays, and its gateway sends requests on as soon as it is back.
        let hook = hooks::pre_stop(&self.pod, name, self.is_proxied())
            .filter(|hook| *hook != Hook::Drain && !grace.is_zero())
            .map(|hook| (hook, running.target.clone()));
        let (shared, pod, name) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.pod),
            name.clone(),
        );
        let work = self.watched("container kill", async move {
            let deadline = Instant::now() + grace;
            if let Some((hook, target)) = hook {
                tokio::select! {
                    () = run_pre_stop(&shared, &pod, &name, hook, &target, grace) => {}
                    _ = container.wait() => return,
                }
            }
            if !grace.is_zero() {
                let _ = container.terminate(signal);
                let deadline = deadline.max(Instant::now() + GRACE_AFTER_HOOKS.min(grace));
                if tokio::time::timeout_at(deadline, container.wait())
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            let _ = container.kill();
        });
        self.tasks.spawn("container kill", work);
    }

    pub(super) fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        grace_of(spec.and_then(|spec| spec.termination_grace_period_seconds))
    }
}

/// A grace period as the API has it; Kubernetes' default where it says nothing.
pub(super) fn grace_of(seconds: Option<i64>) -> Duration {
    Duration::from_secs(u64::try_from(seconds.unwrap_or(TERMINATION_GRACE_SECONDS)).unwrap_or(0))
        .min(GRACE_MAX)
}

/// Runs a container's own preStop hook within `grace`; a failure is told and changes nothing.
async fn run_pre_stop(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    hook: Hook,
    target: &ProbeTarget,
    grace: Duration,
) {
    let outcome = match tokio::time::timeout(grace, hooks::run(hook, target, grace)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("not done within {} s", grace.as_secs())),
    };
    if let Err(message) = outcome {
        shared.event(
            pod,
            Some(name),
            Severity::Warning,
            "FailedPreStopHook",
            format!("PreStopHook failed: {message}"),
        );
    }
}
