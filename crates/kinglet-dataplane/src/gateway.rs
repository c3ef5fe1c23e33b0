//! The way of one request: route, slot, forward.

mod by_name;
mod find;

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use kinglet_decide::feed::Protocol;
use tokio::time::{Instant, Sleep};

use crate::attempt::{self, Attempt, Head, UpstreamError};
use crate::breaker::{Admission, ClusterConfig, Slot, Waiter};
use crate::headers::{self, HeaderFlags, Outbound};
use crate::listen::{ActiveRequest, Peer};
use crate::plane::Plane;
use crate::pool::RawTarget;
use crate::request_body::RequestBody;
use crate::request_log::PendingEntry;
use crate::response::{ProxyError, ResponseBody};
use crate::response_body::{ConnectionDriver, TimeoutResponse, Timeouts, UpstreamBody};
use crate::routes::Destination;
use crate::trace::{ColdStart, SERVER_TIMING, Timings};
use crate::tunnel;

/// Pauses between connection attempts to a container that could not be reached (upstream's steps, capped).
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How much longer than its timeout an answer may lie with a client that does not read it.
const OVERDUE: Duration = Duration::from_secs(5);

/// Serves one request, whatever happens.
pub(crate) async fn serve(
    plane: &Arc<Plane>,
    peer: &Arc<Peer>,
    request: Request<Incoming>,
    raw_target: Option<RawTarget>,
) -> Response<ResponseBody> {
    match AssertUnwindSafe(handle(plane, peer, request, raw_target))
        .catch_unwind()
        .await
    {
        Ok(response) => response,
        Err(_panic) => ProxyError::Panicked.response(false),
    }
}

async fn handle(
    plane: &Arc<Plane>,
    peer: &Arc<Peer>,
    request: Request<Incoming>,
    raw_target: Option<RawTarget>,
) -> Response<ResponseBody> {
    let active = peer.active_request();
    let mut timings = Timings::new();
    let (parts, body) = request.into_parts();
    let flags = HeaderFlags::of(&parts.headers);
    let grpc = flags.has(HeaderFlags::GRPC);
    let line = plane
        .options()
        .access_log
        .then(|| (parts.method.clone(), parts.uri.clone()));
    let arrived = timings.arrived;
    let response = match find::route(plane, peer, &parts, flags) {
        Err(error) => error.response(grpc),
        Ok(find::Routed::LocalReply(response)) => response,
        Ok(find::Routed::To(destination)) => {
            let call = ProxiedRequest {
                plane,
                peer,
                destination: &destination,
                flags,
                retryable: headers::is_retryable(&parts.method, flags),
                raw_target: raw_target.filter(|target| target.is_of(&parts.uri)),
            };
            let mut log = plane.request_logs.begin(peer, &parts);
            match call.run(parts, body, active, &mut timings, &mut log).await {
                Ok(response) => response,
                Err(error) => {
                    if let Some(log) = &mut log {
                        log.status = error.status().as_u16();
                    }
                    error.response(grpc)
                }
            }
        }
    };
    if let Some((method, uri)) = line {
        let milliseconds = arrived.elapsed().as_secs_f64() * 1e3;
        tracing::info!(target: "access", %method, %uri, status = response.status().as_u16(), milliseconds, "request");
    }
    response
}

/// A request on its way to a known destination.
struct ProxiedRequest<'a> {
    plane: &'a Arc<Plane>,
    peer: &'a Arc<Peer>,
    destination: &'a Destination,
    flags: HeaderFlags,
    /// See [`Attempt::retryable`].
    retryable: bool,
    raw_target: Option<RawTarget>,
}

/// What a request holds until its response or its tunnel has ended.
pub(crate) struct Held {
    slot: Slot,
    active: ActiveRequest,
    log: Option<Box<PendingEntry>>,
}

impl ProxiedRequest<'_> {
    async fn run(
        &self,
        mut parts: Parts,
        body: Incoming,
        active: ActiveRequest,
        timings: &mut Timings,
        log: &mut Option<Box<PendingEntry>>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let traced = self.plane.options().trace_every_request || self.flags.has(HeaderFlags::TRACE);
        if traced {
            timings.routed = Some(Instant::now());
        }
        let h1 = parts.version != Version::HTTP_2;
        let (mut slot, cold) = self.slot(timings.arrived).await?;
        if let Some(log) = log {
            log.served_by(&slot);
        }
        if traced || cold {
            timings.admitted = Some(Instant::now());
        }
        let config = slot.config.clone();
        let upgrade = headers::wants_upgrade(&parts, self.flags);
        let client = upgrade
            .then(|| parts.extensions.remove::<OnUpgrade>())
            .flatten();
        let mut request = self.outbound(parts, body, &config, upgrade);
        let Head {
            mut response,
            driver,
        } = self
            .response_head(&mut slot, &mut request, &config, upgrade, timings)
            .await?;
        if traced || cold {
            self.note(timings, traced, cold, &slot, &mut response);
        }
        *response.version_mut() = Version::HTTP_11;
        let flags = HeaderFlags::of(response.headers());
        if headers::has_unsupported_encoding(response.headers(), flags) {
            let cause = "its response has an unsupported transfer encoding".to_owned();
            return Err(broken(&slot, cause));
        }
        if let Some(log) = log {
            log.served_by(&slot);
            log.status = response.status().as_u16();
        }
        let timeouts = self.timeouts(timings.arrived, &config, flags, response.status());
        let held = Held {
            slot,
            active,
            log: log.take(),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.switch(response, flags, client, held, timeouts));
        }
        if h1 && let Some(total) = timeouts.total {
            let left = total.saturating_duration_since(timings.arrived) + OVERDUE;
            held.active.overdue_at(
                self.plane.context.now() + u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2),
            );
        }
        headers::strip_hop(response.headers_mut(), flags, false);
        Ok(deliver(response, flags, driver, held, timeouts).await)
    }

    fn outbound(
        &self,
        mut parts: Parts,
        body: Incoming,
        config: &ClusterConfig,
        upgrade: bool,
    ) -> Option<Request<RequestBody>> {
        let mut body = RequestBody::new(body);
        let h2 = config.protocol == Protocol::H2c && !upgrade;
        let invited = headers::expects_continue(&parts, self.flags) && !h2 && !body.is_empty();
        let how = Outbound {
            destination: self.destination,
            origin: &self.peer.origin,
            revision: config.revision,
            upgrade,
            h2,
            request_id: &self.plane.request_ids,
        };
        headers::outbound(&mut parts, self.flags, &how);
        parts.extensions.clear();
        let progress = body.progress().filter(|_| invited);
        if progress.is_some() {
            body.hold();
        }
        let mut request = Request::from_parts(parts, body);
        if let Some(progress) = progress {
            hyper::ext::on_informational(&mut request, move |informational| {
                if informational.status() == StatusCode::CONTINUE {
                    progress.invite();
                }
            });
        }
        Some(request)
    }

    /// A slot, after waiting if need be; `true` when a container had to be started for it.
    async fn slot(&self, arrived: Instant) -> Result<(Slot, bool), ProxyError> {
        let mut cold = false;
        loop {
            let breaker = self.destination.cluster.breaker(self.destination.port);
            match breaker.admit() {
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
                    if let Some(slot) = self.wait(waiter, arrived).await? {
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
            ProxyError::UnknownBackend { key }
        }
    }

    /// Waits in the queue; `None` when the place has changed its nature and must be looked up again.
    async fn wait(&self, waiter: Waiter, arrived: Instant) -> Result<Option<Slot>, ProxyError> {
        let key = || self.destination.cluster.key().clone();
        let unknown_until = arrived + self.plane.options().unknown_backend_wait;
        let (until, error) = match &waiter.config {
            Some(config) if config.revision => {
                (head_deadline(config, arrived), ProxyError::TimeoutWaiting)
            }
            Some(_service) => (Some(unknown_until), ProxyError::NoEndpoint { key: key() }),
            None => (
                Some(unknown_until),
                ProxyError::UnknownBackend { key: key() },
            ),
        };
        match until {
            None => Ok(waiter.await),
            Some(until) => tokio::time::timeout_at(until, waiter)
                .await
                .map_err(|_elapsed| error),
        }
    }

    /// The head of an answer, from whichever container gives one.
    async fn response_head(
        &self,
        slot: &mut Slot,
        request: &mut Option<Request<RequestBody>>,
        config: &ClusterConfig,
        upgrade: bool,
        timings: &mut Timings,
    ) -> Result<Head, ProxyError> {
        let until = head_deadline(config, timings.arrived);
        let mut deadline = pin!(until.map(tokio::time::sleep_until));
        let mut failing_since = None;
        let mut pause = BACKOFF_FIRST;
        loop {
            let container = slot.container().clone();
            let mut attempt = Attempt {
                container: &container,
                options: self.plane.options(),
                upstreams: &self.plane.upstreams,
                protocol: config.protocol,
                upgrade,
                retryable: self.retryable,
                raw_target: self.raw_target.clone(),
                connected_at: None,
            };
            let sent = request
                .take()
                .expect("a request that was not sent is put back");
            let outcome = attempt::send(&mut attempt, sent, deadline.as_mut().as_pin_mut()).await;
            timings.connected = attempt.connected_at;
            let breaker = slot.breaker().clone();
            let pod = || format!("pod {}", container.pod);
            let (unsent, cause) = match outcome {
                Ok(head) => return Ok(head),
                Err(UpstreamError::Timeout) => return Err(ProxyError::Timeout),
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
            *request = Some(*unsent);
            self.again(slot, timings.arrived).await?;
            if slot.container().was_unreachable() {
                pause_until(pause, deadline.as_mut().as_pin_mut()).await?;
                pause = (pause * 7 / 5).min(BACKOFF_MAX);
            }
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

    fn timeouts(
        &self,
        arrived: Instant,
        config: &ClusterConfig,
        flags: HeaderFlags,
        status: StatusCode,
    ) -> Timeouts {
        let open_ended =
            status == StatusCode::SWITCHING_PROTOCOLS || flags.has(HeaderFlags::EVENT_STREAM);
        let cut = self.plane.options().cut_streams_at_timeout || !open_ended;
        Timeouts {
            total: Some(config.timeout)
                .filter(|timeout| cut && !timeout.is_zero())
                .map(|timeout| arrived + timeout),
            idle: Some(config.idle).filter(|idle| !idle.is_zero()),
        }
    }

    fn switch(
        &self,
        mut response: Response<Incoming>,
        flags: HeaderFlags,
        client: Option<OnUpgrade>,
        held: Held,
        timeouts: Timeouts,
    ) -> Response<ResponseBody> {
        let Some(client) = client else {
            let cause = "it switched protocols without being asked".to_owned();
            return broken(&held.slot, cause).response(false);
        };
        let container = hyper::upgrade::on(&mut response);
        let killed = self.plane.killed.clone();
        let peer = self.peer.clone();
        self.plane.connections.spawn("tunnel", async move {
            // Counted as a connection to the end.
            let _peer = peer;
            tokio::select! {
                () = killed.cancelled() => {}
                () = tunnel::run(client, container, held, timeouts) => {}
            }
        });
        headers::strip_hop(response.headers_mut(), flags, true);
        response.map(|_nothing| ResponseBody::Whole(None))
    }

    fn note(
        &self,
        timings: &Timings,
        traced: bool,
        cold: bool,
        slot: &Slot,
        response: &mut Response<Incoming>,
    ) {
        let answered = Instant::now();
        if traced && let Some(header) = timings.header(answered) {
            response.headers_mut().append(SERVER_TIMING, header);
        }
        if cold && let Some(admitted) = timings.admitted {
            let connected = timings.connected.unwrap_or(admitted);
            let passed =
                jiff::SignedDuration::try_from(timings.arrived.elapsed()).unwrap_or_default();
            let now = self.plane.clock.now();
            self.plane.cold_starts.add(ColdStart {
                revision: slot.breaker().key().clone(),
                pod: slot.container().pod.clone(),
                woke: now.checked_sub(passed).unwrap_or(now),
                wait: admitted.saturating_duration_since(timings.arrived),
                connect: connected.saturating_duration_since(admitted),
                first_byte: answered.saturating_duration_since(connected),
            });
        }
    }
}

fn broken(slot: &Slot, cause: String) -> ProxyError {
    ProxyError::Broken {
        key: slot.breaker().key().clone(),
        pod: format!("pod {}", slot.container().pod),
        cause,
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
    deadline: Option<std::pin::Pin<&mut Sleep>>,
) -> Result<(), ProxyError> {
    match deadline {
        None => tokio::time::sleep(pause).await,
        Some(deadline) => tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = deadline => return Err(ProxyError::Timeout),
        },
    }
    Ok(())
}

/// Hands the answer on: whole if all of it is here already, else as a stream that keeps the slot to its end.
async fn deliver(
    response: Response<Incoming>,
    flags: HeaderFlags,
    driver: ConnectionDriver,
    held: Held,
    timeouts: Timeouts,
) -> Response<ResponseBody> {
    let timeout_response = if flags.has(HeaderFlags::GRPC) {
        TimeoutResponse::GrpcStatus
    } else if flags.has(HeaderFlags::CONTENT_LENGTH) {
        TimeoutResponse::Abort
    } else {
        TimeoutResponse::AppendText
    };
    let (parts, incoming) = response.into_parts();
    let Held { slot, active, log } = held;
    let mut body = UpstreamBody::new(incoming, driver, slot, timeouts, timeout_response);
    body.keep_log(log);
    let whole = poll_fn(|cx| std::task::Poll::Ready(body.read_ahead(cx))).await;
    let answer = match whole {
        Some(bytes) => ResponseBody::Whole(bytes),
        None => {
            body.keep_active(active);
            ResponseBody::Streamed(Box::new(body))
        }
    };
    Response::from_parts(parts, answer)
}
