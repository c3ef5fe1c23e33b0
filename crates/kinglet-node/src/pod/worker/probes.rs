//! The probes of a pod's containers: started, and their outcomes turned into readiness and restarts.

use std::sync::Arc;
use std::time::Duration;

use kinglet_reconcile::Severity;

use super::{Message, Worker};
use crate::engine::Sandbox;
use crate::options::ProxiedPod;
use crate::pod::container_state::{self, Role};
use crate::probe::prober::ProbeTarget;
use crate::probe::schedule::{self, ProbeEvent};
use crate::probe::thresholds::Outcome;
use crate::probe::{self, ProbeType, connect};

impl Worker {
    /// Starts the probes of a container: the startup probe alone at first.
    pub(super) fn start_probes(&mut self, index: usize, attempt: u32) {
        let Some(container) = container_state::container(&self.pod, &self.states[index].name)
        else {
            return;
        };
        let specs = match probe::spec::of(container) {
            Ok(specs) => specs,
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
        let Some(running) = self.running.get(&index) else {
            return;
        };
        for spec in specs
            .into_iter()
            .filter(|spec| (spec.probe_type == ProbeType::Startup) == waits_for_startup)
        {
            let tell = move |event| Message::Probed {
                index,
                attempt,
                event,
            };
            let work = schedule::run(spec, running.target.clone(), self.sender.clone(), tell);
            running
                .probes
                .spawn_cancellable("probe", self.watched("probe", work));
        }
        self.start_proxy_probe();
    }

    /// Starts the readiness probe of the queue-proxy, once it "runs" and there is a pod to ask.
    pub(super) fn start_proxy_probe(&mut self) {
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
        self.start_queue_proxy(&sandbox.namespaces);
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
        match probe::spec::of_queue_proxy(container, encoded) {
            Ok(Some(spec)) => {
                let target = ProbeTarget {
                    engine: self.shared.engine.clone(),
                    sandbox: Arc::clone(&sandbox.namespaces),
                    container: None,
                    process: None,
                    egress: self.shared.egress.clone(),
                };
                let tell = move |event| Message::Probed {
                    index,
                    attempt,
                    event,
                };
                let work = schedule::run(spec, target, self.sender.clone(), tell);
                probe.spawn_cancellable("readiness", self.watched("readiness", work));
            }
            Ok(None) => self.states[index].probe_ready = Some(true),
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

    /// Starts the pod's queue-proxy, where that is a process.
    fn start_queue_proxy(&mut self, namespaces: &Sandbox) {
        let Some(start) = &self.shared.options.queue_proxies else {
            return;
        };
        if self.queue_proxy.is_some() || self.termination.is_some() {
            return;
        }
        match namespaces.network().try_clone_to_owned() {
            Ok(network) => {
                self.queue_proxy = Some(start(ProxiedPod {
                    pod: Arc::clone(&self.pod),
                    address: namespaces.address(),
                    network,
                }));
            }
            Err(error) => {
                tracing::error!(pod = self.pod.metadata.name, %error, "a queue-proxy is not started");
            }
        }
    }

    pub(super) fn take_probe_event(&mut self, index: usize, event: ProbeEvent) {
        let name = self.states[index].name.clone();
        match event {
            ProbeEvent::Failure(probe_type, message) => {
                if self.termination.is_none() {
                    let text = format!("{} probe failed: {message}", probe_type.name());
                    if self.states[index].probe_failure.as_ref() != Some(&text) {
                        self.states[index].probe_failure = Some(text.clone());
                        self.report_soon();
                    }
                    self.shared
                        .event(&self.pod, Some(&name), Severity::Warning, "Unhealthy", text);
                }
            }
            ProbeEvent::LoopbackOnly(port) => {
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
            ProbeEvent::Warning(probe_type, message) => {
                let text = format!("{} probe warning: {message}", probe_type.name());
                self.shared.event(
                    &self.pod,
                    Some(&name),
                    Severity::Warning,
                    "ProbeWarning",
                    text,
                );
            }
            ProbeEvent::Outcome {
                probe_type,
                outcome,
                message,
                grace,
            } => self.apply_outcome(index, probe_type, outcome, &message, grace),
        }
    }

    pub(super) fn apply_outcome(
        &mut self,
        index: usize,
        probe_type: ProbeType,
        outcome: Outcome,
        message: &str,
        grace: Option<Duration>,
    ) {
        let state = &mut self.states[index];
        let attempt = state.attempt;
        tracing::debug!(
            pod = self.pod.metadata.name,
            container = state.name,
            ?probe_type,
            ?outcome,
            message,
            "probe"
        );
        if outcome == Outcome::Succeeded {
            state.probe_failure = None;
        }
        match (probe_type, outcome) {
            (ProbeType::Readiness, outcome) => {
                let draining = self.termination.is_some() && state.role == Role::Proxy;
                state.probe_ready = Some(outcome == Outcome::Succeeded && !draining);
                self.report_soon();
            }
            (ProbeType::Startup, Outcome::Succeeded) => {
                state.started = Some(true);
                self.report_soon();
                self.start_probes(index, attempt);
            }
            (ProbeType::Startup, Outcome::Failed) => {
                self.kill(index, "failed startup probe, will be restarted", grace)
            }
            (ProbeType::Liveness, Outcome::Failed) => {
                self.kill(index, "failed liveness probe, will be restarted", grace)
            }
            (ProbeType::Liveness, Outcome::Succeeded) => {}
        }
    }
}
