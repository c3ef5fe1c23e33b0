//! Ending a pod: drain and hooks, SIGTERM, patience, SIGKILL, and leaving nothing behind.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kinglet_reconcile::{ReconcileError, Severity};
use serde_json::json;
use tokio::time::Instant;

use super::{Message, Stopping, Worker};
use crate::pod::container_state::{Ending, Role, Stage};
use crate::pod::hooks::{self, Hook};
use crate::pod::start::uid;
use crate::volumes::disk;

/// A pod's tasks end with its processes; this is for a machine that is stuck.
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);
/// The last write of a pod is tried so often.
const DELETE_ATTEMPTS: u32 = 5;

impl Worker {
    /// Begins to end, or shortens the patience of an ending that has begun.
    pub(super) fn begin_stop(&mut self, grace: Duration, quietly: bool) {
        let deadline = Instant::now() + grace;
        if let Some(stopping) = &mut self.stopping {
            stopping.quietly |= quietly;
            if deadline < stopping.deadline {
                stopping.deadline = deadline;
            }
            return;
        }
        self.stopping = Some(Stopping {
            deadline,
            asked: false,
            killed: false,
            quietly,
        });
        for index in 0..self.states.len() {
            if self.states[index].is_running() && self.finished.is_none() {
                let name = self.states[index].name.clone();
                if !quietly {
                    self.shared.event(
                        &self.pod,
                        Some(&name),
                        Severity::Normal,
                        "Killing",
                        format!("Stopping container {name}"),
                    );
                }
                if self.states[index].role == Role::Proxy {
                    self.states[index].passed = Some(false);
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
        for (index, live) in &self.live {
            live.probes.cancel();
            if let Some(hook) = hooks::pre_stop(&self.pod, &self.states[*index].name, proxied)
                && hook != Hook::Drain
            {
                all.push((hook, live.target.clone()));
            }
        }
        let address = self.sandbox().map(|sandbox| sandbox.namespaces.address());
        let drains = proxied && !self.live.is_empty() && !grace.is_zero();
        if (all.is_empty() && !drains) || grace.is_zero() {
            if let Some(stopping) = &mut self.stopping {
                stopping.asked = true;
            }
            self.ask_all_to_end();
            return;
        }
        let (drain, sender) = (Arc::clone(&self.shared.options.drain), self.sender.clone());
        self.tasks.spawn_cancellable("preStop", async move {
            let work = async {
                if let Some(address) = address.filter(|_| drains) {
                    drain(address.into()).await;
                }
                let hooks = all.into_iter().map(|(hook, target)| async move {
                    if let Err(message) = hooks::run(hook, &target, grace).await {
                        tracing::debug!(message, "preStop hook failed");
                    }
                });
                futures_util::future::join_all(hooks).await;
            };
            let _ = tokio::time::timeout(grace, work).await;
            let _ = sender.send(Message::Drained).await;
        });
    }

    pub(super) fn ask_all_to_end(&self) {
        for live in self.live.values() {
            if let Err(error) = live.container.terminate(live.stop_signal) {
                tracing::debug!(%error, "a container could not be asked to end");
            }
        }
    }

    /// SIGKILL when patience is over.
    pub(super) fn stop_further(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if stopping.killed || Instant::now() < stopping.deadline {
            return;
        }
        stopping.killed = true;
        stopping.asked = true;
        for live in self.live.values() {
            let _ = live.container.kill();
        }
    }

    /// Nothing will run any more, without anybody having asked for it.
    pub(super) fn finish(&mut self, well: bool) {
        self.finished = Some(well);
        let now = self.shared.context().now();
        for live in self.live.values() {
            live.probes.cancel();
            let _ = live.container.kill();
        }
        self.end_rest(now);
        self.report_now();
    }

    /// Members without a process are over, too.
    fn end_rest(&mut self, now: jiff::Timestamp) {
        for state in &mut self.states {
            if state.role == Role::Proxy
                && let Stage::Running { since } = state.stage
            {
                state.stage = Stage::Ended(Ending {
                    code: 0,
                    signal: None,
                    reason: "Completed",
                    message: String::new(),
                    started_at: Some(since),
                    finished_at: now,
                    container_id: state.container_id.clone(),
                });
                state.passed = Some(false);
            }
        }
    }

    /// Whether everything has ended and the worker may leave.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(stopping) = &self.stopping else {
            return false;
        };
        let quietly = stopping.quietly;
        // What is only being started is dropped with its task.
        if !self.live.is_empty() {
            return false;
        }
        if self.finished.is_none() && !quietly {
            let now = self.shared.context().now();
            self.end_rest(now);
            let well = self
                .states
                .iter()
                .filter(|state| state.role == Role::App)
                .all(|state| match &state.stage {
                    Stage::Ended(ending) => ending.code == 0,
                    _ => true,
                });
            self.finished = Some(well);
            self.report_now();
            return false;
        }
        true
    }

    /// Gives back everything, then lets the object go.
    pub(super) async fn leave(mut self) {
        let delete = !self.gone && self.pod.metadata.deletion_timestamp.is_some();
        self.live.clear();
        self.messages.close();
        self.tasks.shutdown(TASKS_TIMEOUT).await;
        drop(std::mem::take(&mut self.sandbox));
        if delete {
            self.delete().await;
        }
        let directories = self.directories.clone();
        let _ = tokio::task::spawn_blocking(move || disk::remove(&directories)).await;
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
}
