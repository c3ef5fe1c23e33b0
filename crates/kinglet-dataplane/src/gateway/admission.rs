//! A slot for a request, and the head of its response from whichever container gives one.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kinglet_decide::feed::Key;
use tokio::time::{Instant, Sleep};

use super::{ProxiedRequest, Way, broken};
use crate::attempt::{self, Attempt, Head, UpstreamError};
use crate::breaker::{Admission, ClusterConfig, Slot, Waiter};
use crate::headers;
use crate::request_body::RequestBody;
use crate::response::ProxyError;
use crate::role::{Hop, Role};
use crate::trace::Timings;

/// Pauses between connection attempts to a container that could not be reached (upstream's steps, capped).
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

impl ProxiedRequest<'_> {
    /// A slot, after waiting if need be; `true` when a container had to be started for it.
    /// `body` is read ahead meanwhile, so that a client that hangs up is noticed.
    pub(super) async fn slot(
        &self,
        arrived: Instant,
        body: &mut RequestBody,
    ) -> Result<(Slot, bool), ProxyError> {
        let mut cold = false;
        loop {
            let breaker = self.destination.cluster.breaker(self.destination.port);
            match breaker.admit(self.proxied) {
                Admission::Admitted(slot) => return Ok((slot, cold)),
                Admission::QueueFull => return Err(ProxyError::QueueFull),
                Admission::Removed => {
                    let again = self.destination.cluster.breaker(self.destination.port);
                    if Arc::ptr_eq(&again, &breaker) {
                        return Err(self.removed());
                    }
                }
                Admission::Queued(waiter) => {
                    cold |= waiter.cold;
                    let waited = tokio::select! {
                        biased;
                        waited = self.wait(waiter, arrived) => waited?,
                        () = body.read_ahead() => None,
                    };
                    if let Some(slot) = waited {
                        return Ok((slot, cold));
                    }
                }
            }
        }
    }

    /// The backend was deleted while the request was on its way to it.
    fn removed(&self) -> ProxyError {
        let key = self.destination.cluster.key().clone();
        if self.destination.cluster.is_service() {
            ProxyError::NoEndpoint { key }
        } else {
            self.unknown(key)
        }
    }

    /// No update describes the backend.
    fn unknown(&self, key: Key) -> ProxyError {
        match self.plane.options().role {
            Role::Gateway => ProxyError::NoEndpoint { key },
            Role::Whole | Role::Activator | Role::Queue => ProxyError::UnknownBackend { key },
        }
    }

    /// Waits in the queue; `None` when the place has changed its nature and must be looked up again.
    async fn wait(&self, waiter: Waiter, arrived: Instant) -> Result<Option<Slot>, ProxyError> {
        let key = || self.destination.cluster.key().clone();
        let waiter_is_cold = waiter.cold;
        let unknown_until = arrived + self.plane.options().unknown_backend_wait;
        let (until, is_known, error) = match &waiter.config {
            Some(config) if config.hop.is_revision() => {
                let deadline = head_deadline(config, arrived);
                (deadline, true, config.hop.timeout_waiting())
            }
            Some(_service) => {
                let error = ProxyError::NoEndpoint { key: key() };
                (Some(unknown_until), true, error)
            }
            None => (Some(unknown_until), false, self.unknown(key())),
        };
        // Whoever waits for a container to start is told that none will; others wait for one that runs, and are served.
        let stopping = self.plane.connections.token();
        let stopped = async {
            match waiter_is_cold {
                true => stopping.cancelled().await,
                false => std::future::pending().await,
            }
        };
        let expired = async {
            if !is_known {
                self.plane.backends_told(arrived).await;
            }
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            slot = waiter => Ok(slot),
            // Described meanwhile: it has deadlines of its own.
            () = expired => match !is_known && self.destination.cluster.is_known() {
                true => Ok(None),
                false => Err(error),
            },
            () = stopped => Err(ProxyError::Stopping),
        }
    }

    /// The head of an answer, from whichever container gives one.
    pub(super) async fn response_head(
        &self,
        slot: &mut Slot,
        request: &mut Option<Request<RequestBody>>,
        config: &ClusterConfig,
        way: Way,
        timings: &mut Timings,
    ) -> Result<Head, ProxyError> {
        let until = head_deadline(config, timings.arrived);
        let mut deadline = pin!(until.map(tokio::time::sleep_until));
        let mut failing_since = None;
        let mut pause = BACKOFF_FIRST;
        let mut to_component = self.leads_to_component(config);
        loop {
            let container = slot.container().clone();
            let mut attempt = Attempt {
                container: &container,
                options: self.plane.options(),
                upstreams: &self.plane.upstreams,
                protocol: way.protocol,
                upgrade: way.upgrade,
                retryable: self.retryable,
                to_component,
                died: false,
                raw_target: self.raw_target.clone(),
                connected_at: None,
            };
            let sent = request
                .take()
                .expect("a request that was not sent is put back");
            let outcome = attempt::send(&mut attempt, sent, deadline.as_mut().as_pin_mut()).await;
            timings.connected = attempt.connected_at;
            // Once: a request that makes one component after the other die must not go through all of them.
            to_component &= !attempt.died;
            let breaker = slot.breaker().clone();
            let pod = || format!("pod {}", container.pod);
            let (unsent, cause) = match outcome {
                Ok(head) => return Ok(head),
                Err(UpstreamError::Timeout) => return Err(config.hop.timeout()),
                Err(UpstreamError::Broken(cause)) => return Err(broken(slot, cause)),
                Err(UpstreamError::Unsent(unsent, cause)) => (unsent, cause),
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.plane.options().connect_patience && !container.is_draining() {
                return Err(ProxyError::Unreachable {
                    key: breaker.key().clone(),
                    pod: pod(),
                    cause,
                });
            }
            let mut unsent = *unsent;
            self.again(slot, timings.arrived).await?;
            if config.hop == Hop::QueueProxy {
                headers::readdress(&mut unsent, &slot.container().host);
            }
            *request = Some(unsent);
            if slot.container().was_unreachable() {
                pause_until(pause, deadline.as_mut().as_pin_mut(), config.hop).await?;
                pause = (pause * 7 / 5).min(BACKOFF_MAX);
            }
        }
    }

    /// Whether the next one is an activator or a queue-proxy in a process of its own.
    fn leads_to_component(&self, config: &ClusterConfig) -> bool {
        match config.hop {
            Hop::QueueProxy => true,
            // A Route's splits name their Revision; an ordinary Service is a user's own.
            Hop::Service => {
                self.plane.options().role == Role::Gateway
                    && !self.destination.service_headers.is_empty()
            }
            Hop::Whole | Hop::UserContainer => false,
        }
    }

    async fn again(&self, slot: &mut Slot, arrived: Instant) -> Result<(), ProxyError> {
        match slot.readmit() {
            Admission::Admitted(other) => *slot = other,
            Admission::QueueFull => return Err(ProxyError::QueueFull),
            Admission::Removed => return Err(self.removed()),
            Admission::Queued(waiter) => match self.wait(waiter, arrived).await? {
                Some(other) => *slot = other,
                None => return Err(self.removed()),
            },
        }
        Ok(())
    }
}

/// By when the head of an answer must be here: the earliest of the Revision's timeouts, all counted from arrival.
fn head_deadline(config: &ClusterConfig, arrived: Instant) -> Option<Instant> {
    [config.timeout, config.response_start, config.idle]
        .into_iter()
        .filter(|limit| !limit.is_zero())
        .min()
        .map(|limit| arrived + limit)
}

async fn pause_until(
    pause: Duration,
    deadline: Option<Pin<&mut Sleep>>,
    hop: Hop,
) -> Result<(), ProxyError> {
    match deadline {
        None => tokio::time::sleep(pause).await,
        Some(deadline) => tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = deadline => return Err(hop.timeout()),
        },
    }
    Ok(())
}
