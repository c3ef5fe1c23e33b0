//! The way of one request: route, slot, forward.

mod admission;
pub(crate) mod by_name;
mod component;
mod deliver;
mod find;
mod local;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use kinglet_decide::feed::Protocol;
use tokio::time::Instant;

use crate::attempt::Head;
use crate::breaker::{ClusterConfig, Slot};
use crate::headers::{self, HeaderFlags, Outbound};
use crate::listen::{ActiveRequest, Peer};
use crate::plane::Plane;
use crate::pool::RawTarget;
use crate::request_body::{BodySource, RequestBody};
use crate::request_log::PendingEntry;
use crate::response::{self, ProxyError, ResponseBody};
use crate::response_body::Timeouts;
use crate::role::Role;
use crate::routes::Destination;
use crate::trace::Timings;

/// How much longer than its timeout an answer may lie with a client that does not read it.
const OVERDUE: Duration = Duration::from_secs(5);

/// Serves one request, whatever happens.
pub(crate) async fn serve(
    plane: &Arc<Plane>,
    peer: &Arc<Peer>,
    request: Request<BodySource>,
    raw_target: Option<RawTarget>,
    active: ActiveRequest,
) -> Response<ResponseBody> {
    match AssertUnwindSafe(handle(plane, peer, request, raw_target, active))
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
    request: Request<BodySource>,
    raw_target: Option<RawTarget>,
    active: ActiveRequest,
) -> Response<ResponseBody> {
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
        Ok(find::Routed::Probe(answer, destination)) => {
            let status = answer
                .as_ref()
                .map_or_else(ProxyError::status, Response::status);
            plane.request_logs.probe(peer, &parts, &destination, status);
            answer.unwrap_or_else(|error| error.response(grpc))
        }
        Ok(find::Routed::ReadinessCheck) => {
            let answer = match plane.queue.is_ready().await {
                true => response::text(StatusCode::OK, "queue"),
                false => ProxyError::NotReady.response(grpc),
            };
            if let Some(user) = plane.queue.user_container(true) {
                let status = answer.status();
                plane.request_logs.probe(peer, &parts, &user, status);
            }
            answer
        }
        Ok(find::Routed::Local(service)) => {
            let call = local::call(plane, peer, &service, parts, body, flags, active);
            let outcome = tokio::select! {
                biased;
                outcome = call => outcome,
                () = plane.cut.cancelled() => Err(ProxyError::Stopping),
            };
            outcome.unwrap_or_else(|error| error.response(grpc))
        }
        Ok(find::Routed::To(destination)) => {
            let call = ProxiedRequest {
                plane,
                peer,
                destination: &destination,
                flags,
                retryable: headers::is_retryable(&parts.method, flags),
                raw_target: raw_target.filter(|target| target.is_of(&parts.uri)),
                proxied: plane.options().role == Role::Queue && flags.has(HeaderFlags::PROXIED),
            };
            let mut log = plane
                .request_logs
                .begin(peer, &parts, call.raw_target.as_ref());
            let outcome = tokio::select! {
                biased;
                outcome = call.run(parts, body, active, &mut timings, &mut log) => outcome,
                () = plane.cut.cancelled() => Err(ProxyError::Stopping),
            };
            match outcome {
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
    /// See [`crate::attempt::Attempt::retryable`].
    retryable: bool,
    raw_target: Option<RawTarget>,
    /// An activator counts it, too.
    proxied: bool,
}

/// How a request leaves.
#[derive(Clone, Copy)]
struct Way {
    protocol: Protocol,
    upgrade: bool,
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
        body: BodySource,
        active: ActiveRequest,
        timings: &mut Timings,
        log: &mut Option<Box<PendingEntry>>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let traced = self.plane.options().trace_every_request || self.flags.has(HeaderFlags::TRACE);
        if traced {
            timings.routed = Some(Instant::now());
        }
        let h1 = parts.version != Version::HTTP_2;
        let mut body = RequestBody::new(body);
        let (mut slot, cold) = match headers::expects_continue(&parts, self.flags) {
            // Reading would invite the body, which is for the container to do.
            true => {
                self.slot(timings.arrived, &mut RequestBody::empty())
                    .await?
            }
            false => self.slot(timings.arrived, &mut body).await?,
        };
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
        let way = Way {
            protocol: config.hop.protocol(config.protocol, !h1),
            upgrade,
        };
        let mut request = self.outbound(parts, body, &slot, way);
        let Head {
            mut response,
            driver,
        } = self
            .response_head(&mut slot, &mut request, &config, way, timings)
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
            self.overdue_at(total, timings.arrived, &held.active);
        }
        headers::strip_hop(response.headers_mut(), flags, false);
        Ok(deliver::deliver(response, flags, driver, held, timeouts).await)
    }

    /// Ends the client's connection when a response that it does not read is overdue.
    fn overdue_at(&self, total: Instant, arrived: Instant, active: &ActiveRequest) {
        let left = total.saturating_duration_since(arrived) + OVERDUE;
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2);
        active.overdue_at(self.plane.context.now() + left);
    }

    fn outbound(
        &self,
        mut parts: Parts,
        mut body: RequestBody,
        slot: &Slot,
        way: Way,
    ) -> Option<Request<RequestBody>> {
        let h2 = way.protocol == Protocol::H2c && !way.upgrade;
        let invited = headers::expects_continue(&parts, self.flags) && !h2 && !body.is_empty();
        let how = Outbound {
            destination: self.destination,
            origin: &self.peer.origin,
            hop: slot.config.hop,
            address: &slot.container().host,
            upgrade: way.upgrade,
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
}

fn broken(slot: &Slot, cause: String) -> ProxyError {
    ProxyError::Broken {
        key: slot.breaker().key().clone(),
        pod: format!("pod {}", slot.container().pod),
        cause,
    }
}
