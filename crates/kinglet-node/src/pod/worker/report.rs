//! Telling the API: as few writes as possible, and at once when somebody waits for it.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kinglet_reconcile::{ReconcileError, key_of};
use tokio::time::Instant;

use super::{REPORT_DELAY, REPORT_RETRY, Worker};
use crate::pod::container_state::Stage;
use crate::pod::start::uid;
use crate::pod::status::{self, ObservedPod};

/// A conflict means that somebody else wrote; twice is bad luck, more is a fight.
const CONFLICTS_MAX: u32 = 4;

impl Worker {
    /// Something changed that can wait a moment.
    pub(super) fn report_soon(&mut self) {
        self.report_at
            .get_or_insert_with(|| Instant::now() + REPORT_DELAY);
    }

    pub(super) fn report_now(&mut self) {
        self.report_at = Some(Instant::now());
    }

    fn status(&self) -> PodStatus {
        let sandbox = self.sandbox();
        status::of(&ObservedPod {
            pod: &self.pod,
            states: &self.states,
            pod_ip: sandbox.map(|sandbox| sandbox.namespaces.address()),
            host_ip: self.shared.engine.gateway(),
            start_time: self.start_time,
            finished: self.finished,
            terminating: self.termination.is_some(),
            failure: self
                .failure
                .as_ref()
                .map(|(reason, message)| (*reason, message.as_str())),
            now: self.shared.context().now(),
        })
    }

    /// Writes the status if it is time to.
    pub(super) async fn report(&mut self) {
        self.update_log_readers();
        let leave_object = self.gone
            || self
                .termination
                .as_ref()
                .is_some_and(|termination| termination.leave_object);
        if leave_object {
            self.report_at = None;
            return;
        }
        let Some(at) = self.report_at else { return };
        let now = Instant::now();
        let mut fresh = self.status();
        let urgent = status::is_urgent(&fresh, self.written.as_ref().or(self.pod.status.as_ref()));
        if at > now && !urgent {
            return;
        }
        self.report_at = None;
        for _ in 0..CONFLICTS_MAX {
            if self.pod.status.as_ref() == Some(&fresh) {
                self.written = Some(fresh);
                return;
            }
            match self
                .shared
                .context()
                .update_status::<Pod>(&self.pod, &fresh)
                .await
            {
                Ok(written) => {
                    tracing::debug!(
                        pod = self.pod.metadata.name,
                        phase = fresh.phase,
                        urgent,
                        "status is written"
                    );
                    self.pod = written;
                    self.written = Some(fresh);
                    return;
                }
                Err(ReconcileError::Conflict { .. }) => {
                    match self.shared.context().read::<Pod>(&key_of(&*self.pod)).await {
                        Ok(newer) if uid(&newer) == uid(&self.pod) => {
                            self.pod = newer;
                            fresh = self.status();
                        }
                        // Another pod of that name, or none: ours is gone, and the watch will say so.
                        _ => return,
                    }
                }
                Err(ReconcileError::NotFound { .. }) => return,
                Err(error) => {
                    tracing::debug!(pod = self.pod.metadata.name, %error, "a pod's status could not be written");
                    self.report_at = Some(now + REPORT_RETRY);
                    return;
                }
            }
        }
        self.report_at = Some(now + REPORT_RETRY);
    }

    /// Readers of logs want to know why there is none.
    fn update_log_readers(&self) {
        let mut logs = self.logs.lock();
        for (state, (_, log)) in self.states.iter().zip(&mut logs.containers) {
            if let Stage::StartFailed { reason, .. } = &state.stage
                && log.waiting != *reason
            {
                log.waiting = (*reason).to_owned();
            }
        }
    }
}
