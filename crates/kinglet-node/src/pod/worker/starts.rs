//! What is due next in a pod: containers to start, and the end of the pod's time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_reconcile::Severity;
use tokio::time::Instant;

use super::containers::container_id;
use super::{Message, Worker};
use crate::pod::container_state::{self, Role, Stage};
use crate::pod::lifecycle::{self, RestartPolicy, later};
use crate::pod::start::{self, uid};

impl Worker {
    /// Starts what is due; gives when to look again.
    pub(super) fn decide(&mut self) -> Option<Instant> {
        if self.termination.is_some() || self.finished.is_some() {
            self.kill_when_due();
            return None;
        }
        let policy = RestartPolicy::parse(
            self.pod
                .spec
                .as_ref()
                .and_then(|spec| spec.restart_policy.as_deref()),
        );
        let now = self.shared.context().now();
        let deadline = self.active_deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_at_deadline();
            return None;
        }
        let mut next = lifecycle::next(&self.states, policy, now);
        next.wake = next.wake.into_iter().chain(deadline).min();
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

    /// A ConfigMap or Secret that a container waits for may be there now.
    pub(super) fn retry_starts(&mut self) {
        let now = self.shared.context().now();
        for state in &mut self.states {
            if let Stage::StartFailed { reason, until, .. } = &mut state.stage
                && matches!(*reason, "ContainerCreating" | "CreateContainerConfigError")
            {
                *until = (*until).min(now);
            }
        }
    }

    /// When the pod has been active for as long as it may (`activeDeadlineSeconds`).
    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let allowed = Duration::from_secs(u64::try_from(seconds).ok()?);
        Some(later(self.start_time, allowed))
    }

    fn fail_at_deadline(&mut self) {
        const MESSAGE: &str = "Pod was active on the node longer than the specified deadline";
        self.failure = Some(("DeadlineExceeded", MESSAGE.to_owned()));
        self.shared.event(
            &self.pod,
            None,
            Severity::Normal,
            "DeadlineExceeded",
            MESSAGE,
        );
        self.begin_termination(self.grace(), false);
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
            self.start_proxy_probe();
            return;
        }
        if let Stage::Terminated(terminated) = &state.stage {
            state.last = Some(terminated.clone());
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
        let work = self.watched("container start", async move {
            let result = Box::new(start::container(&shared, &pod, &name, attempt, &sandbox).await);
            let _ = sender
                .send(Message::Started {
                    index,
                    attempt,
                    result,
                })
                .await;
        });
        self.tasks.spawn_cancellable("container start", work);
        if !proxied || self.written.is_some() {
            self.report_soon();
        }
    }
}
