//! The way of one request: route, seat, forward.

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

use crate::answer::{Answer, Refusal};
use crate::download::{Clocks, Download, Driver, Farewell};
use crate::exchange::{self, Head, Trip, Trouble};
use crate::headers::{self, Marks, Outbound};
use crate::listen::{Busy, Peer};
use crate::lobby::{Entered, Facts, Ticket, Visit};
use crate::plane::Plane;
use crate::routes::Destination;
use crate::trace::{ColdStart, SERVER_TIMING, Timings};
use crate::tunnel;
use crate::upload::Upload;

/// Pauses between connection attempts to a container that could not be reached (upstream's steps, capped).
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How much longer than its timeout an answer may lie with a client that does not read it.
const OVERDUE: Duration = Duration::from_secs(5);

/// Serves one request, whatever happens.
pub(crate) async fn serve(
    plane: &Arc<Plane>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Answer> {
    match AssertUnwindSafe(handle(plane, peer, request))
        .catch_unwind()
        .await
    {
        Ok(response) => response,
        Err(_panic) => Refusal::Panicked.answer(false),
    }
}

async fn handle(plane: &Arc<Plane>, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    let busy = peer.busy();
    let mut timings = Timings::new();
    let (parts, body) = request.into_parts();
    let marks = Marks::of(&parts.headers);
    let grpc = marks.has(Marks::GRPC);
    let line = plane
        .options()
        .access_log
        .then(|| (parts.method.clone(), parts.uri.clone()));
    let arrived = timings.arrived;
    let response = match find::route(plane, peer, &parts, marks) {
        Err(refusal) => refusal.answer(grpc),
        Ok(find::Routed::Answer(response)) => response,
        Ok(find::Routed::To(destination)) => {
            let call = Call {
                plane,
                peer,
                destination: &destination,
                marks,
            };
            match call.run(parts, body, busy, &mut timings).await {
                Ok(response) => response,
                Err(refusal) => refusal.answer(grpc),
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
struct Call<'a> {
    plane: &'a Arc<Plane>,
    peer: &'a Peer,
    destination: &'a Destination,
    marks: Marks,
}

impl Call<'_> {
    async fn run(
        &self,
        mut parts: Parts,
        body: Incoming,
        busy: Busy,
        timings: &mut Timings,
    ) -> Result<Response<Answer>, Refusal> {
        let traced = self.plane.options().trace_every_request || self.marks.has(Marks::TRACE);
        if traced {
            timings.routed = Some(Instant::now());
        }
        let h1 = parts.version != Version::HTTP_2;
        let (mut visit, cold) = self.seat(timings.arrived).await?;
        if traced || cold {
            timings.seated = Some(Instant::now());
        }
        let facts = visit.facts.clone();
        let upgrade = headers::wants_upgrade(&parts, self.marks);
        let client = upgrade
            .then(|| parts.extensions.remove::<OnUpgrade>())
            .flatten();
        let mut request = self.outbound(parts, body, &facts, upgrade);
        let Head {
            mut response,
            driver,
        } = self
            .answered(&mut visit, &mut request, &facts, upgrade, timings)
            .await?;
        if traced || cold {
            self.note(timings, traced, cold, &visit, &mut response);
        }
        *response.version_mut() = Version::HTTP_11;
        let marks = Marks::of(response.headers());
        let clocks = self.clocks(timings.arrived, &facts, marks, response.status());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.switch(response, marks, client, visit, busy, clocks));
        }
        if h1 && let Some(total) = clocks.total {
            let left = total.saturating_duration_since(timings.arrived) + OVERDUE;
            busy.overdue_at(
                self.plane.wiring.now() + u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2),
            );
        }
        headers::strip_hop(response.headers_mut(), marks, false);
        Ok(deliver(response, marks, driver, visit, busy, clocks).await)
    }

    fn outbound(
        &self,
        mut parts: Parts,
        body: Incoming,
        facts: &Facts,
        upgrade: bool,
    ) -> Option<Request<Upload>> {
        let mut upload = Upload::new(body);
        let h2 = facts.protocol == Protocol::H2c && !upgrade;
        let invited = headers::expects_continue(&parts, self.marks) && !h2 && !upload.is_empty();
        let how = Outbound {
            destination: self.destination,
            origin: &self.peer.origin,
            revision: facts.revision,
            upgrade,
            h2,
            request_id: &self.plane.request_ids,
        };
        headers::outbound(&mut parts, self.marks, &how);
        parts.extensions.clear();
        let progress = upload.progress().filter(|_| invited);
        if progress.is_some() {
            upload.hold();
        }
        let mut request = Request::from_parts(parts, upload);
        if let Some(progress) = progress {
            hyper::ext::on_informational(&mut request, move |informational| {
                if informational.status() == StatusCode::CONTINUE {
                    progress.invite();
                }
            });
        }
        Some(request)
    }

    /// A seat, after waiting if need be; `true` when a container had to be started for it.
    async fn seat(&self, arrived: Instant) -> Result<(Visit, bool), Refusal> {
        let mut cold = false;
        loop {
            let lobby = self.destination.place.lobby(self.destination.port);
            match lobby.enter() {
                Entered::Seated(visit) => return Ok((visit, cold)),
                Entered::Full => return Err(Refusal::QueueFull),
                Entered::Waiting(ticket) => {
                    cold |= ticket.cold;
                    if let Some(visit) = self.wait(ticket, arrived).await? {
                        return Ok((visit, cold));
                    }
                }
            }
        }
    }

    /// Waits in the queue; `None` when the place has changed its nature and must be looked up again.
    async fn wait(&self, ticket: Ticket, arrived: Instant) -> Result<Option<Visit>, Refusal> {
        let key = || self.destination.place.key().clone();
        let unknown_until = arrived + self.plane.options().unknown_backend_wait;
        let (until, refusal) = match &ticket.facts {
            Some(facts) if facts.revision => {
                (head_deadline(facts, arrived), Refusal::TimeoutWaiting)
            }
            Some(_service) => (Some(unknown_until), Refusal::NoEndpoint { key: key() }),
            None => (Some(unknown_until), Refusal::UnknownBackend { key: key() }),
        };
        match until {
            None => Ok(ticket.await),
            Some(until) => tokio::time::timeout_at(until, ticket)
                .await
                .map_err(|_elapsed| refusal),
        }
    }

    /// The head of an answer, from whichever container gives one.
    async fn answered(
        &self,
        visit: &mut Visit,
        request: &mut Option<Request<Upload>>,
        facts: &Facts,
        upgrade: bool,
        timings: &mut Timings,
    ) -> Result<Head, Refusal> {
        let until = head_deadline(facts, timings.arrived);
        let mut deadline = pin!(until.map(tokio::time::sleep_until));
        let mut trouble_since = None;
        let mut pause = BACKOFF_FIRST;
        loop {
            let container = visit.container().clone();
            let mut trip = Trip {
                container: &container,
                options: self.plane.options(),
                links: &self.plane.links,
                protocol: facts.protocol,
                upgrade,
                connected_at: None,
            };
            let sent = request
                .take()
                .expect("a request that was not sent is put back");
            let outcome = exchange::send(&mut trip, sent, deadline.as_mut().as_pin_mut()).await;
            timings.connected = trip.connected_at;
            let lobby = visit.lobby().clone();
            let pod = || format!("pod {}", container.pod);
            let (unsent, cause) = match outcome {
                Ok(head) => return Ok(head),
                Err(Trouble::Timeout) => return Err(Refusal::Timeout),
                Err(Trouble::Broken(cause)) => {
                    return Err(Refusal::Broken {
                        key: lobby.key().clone(),
                        pod: pod(),
                        cause,
                    });
                }
                Err(Trouble::Unreached(unsent, cause)) => (unsent, cause),
            };
            let since = *trouble_since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.plane.options().connect_patience && !container.is_closing() {
                return Err(Refusal::Unreachable {
                    key: lobby.key().clone(),
                    pod: pod(),
                    cause,
                });
            }
            *request = Some(*unsent);
            self.again(visit, timings.arrived).await?;
            if visit.container().was_unreachable() {
                pause_until(pause, deadline.as_mut().as_pin_mut()).await?;
                pause = (pause * 7 / 5).min(BACKOFF_MAX);
            }
        }
    }

    async fn again(&self, visit: &mut Visit, arrived: Instant) -> Result<(), Refusal> {
        match visit.exchange() {
            Entered::Seated(other) => *visit = other,
            Entered::Full => return Err(Refusal::QueueFull),
            Entered::Waiting(ticket) => match self.wait(ticket, arrived).await? {
                Some(other) => *visit = other,
                None => {
                    return Err(Refusal::UnknownBackend {
                        key: self.destination.place.key().clone(),
                    });
                }
            },
        }
        Ok(())
    }

    fn clocks(&self, arrived: Instant, facts: &Facts, marks: Marks, status: StatusCode) -> Clocks {
        let open_ended =
            status == StatusCode::SWITCHING_PROTOCOLS || marks.has(Marks::EVENT_STREAM);
        let cut = self.plane.options().cut_streams_at_timeout || !open_ended;
        Clocks {
            total: Some(facts.timeout)
                .filter(|timeout| cut && !timeout.is_zero())
                .map(|timeout| arrived + timeout),
            idle: Some(facts.idle).filter(|idle| !idle.is_zero()),
        }
    }

    fn switch(
        &self,
        mut response: Response<Incoming>,
        marks: Marks,
        client: Option<OnUpgrade>,
        visit: Visit,
        busy: Busy,
        clocks: Clocks,
    ) -> Response<Answer> {
        let Some(client) = client else {
            let cause = "it switched protocols without being asked".to_owned();
            let pod = format!("pod {}", visit.container().pod);
            return Refusal::Broken {
                key: visit.lobby().key().clone(),
                pod,
                cause,
            }
            .answer(false);
        };
        let container = hyper::upgrade::on(&mut response);
        let killed = self.plane.killed.clone();
        self.plane.connections.spawn("tunnel", async move {
            tokio::select! {
                () = killed.cancelled() => {}
                () = tunnel::run(client, container, visit, busy, clocks) => {}
            }
        });
        headers::strip_hop(response.headers_mut(), marks, true);
        response.map(|_nothing| Answer::Whole(None))
    }

    fn note(
        &self,
        timings: &Timings,
        traced: bool,
        cold: bool,
        visit: &Visit,
        response: &mut Response<Incoming>,
    ) {
        let answered = Instant::now();
        if traced && let Some(header) = timings.header(answered) {
            response.headers_mut().append(SERVER_TIMING, header);
        }
        if cold && let Some(seated) = timings.seated {
            let connected = timings.connected.unwrap_or(seated);
            let passed =
                jiff::SignedDuration::try_from(timings.arrived.elapsed()).unwrap_or_default();
            let now = self.plane.clock.now();
            self.plane.cold_starts.add(ColdStart {
                revision: visit.lobby().key().clone(),
                pod: visit.container().pod.clone(),
                woke: now.checked_sub(passed).unwrap_or(now),
                wait: seated.saturating_duration_since(timings.arrived),
                connect: connected.saturating_duration_since(seated),
                first_byte: answered.saturating_duration_since(connected),
            });
        }
    }
}

/// By when the head of an answer must be here: the earliest of the Revision's clocks, all counted from arrival.
fn head_deadline(facts: &Facts, arrived: Instant) -> Option<Instant> {
    [facts.timeout, facts.response_start, facts.idle]
        .into_iter()
        .filter(|limit| !limit.is_zero())
        .min()
        .map(|limit| arrived + limit)
}

async fn pause_until(
    pause: Duration,
    deadline: Option<std::pin::Pin<&mut Sleep>>,
) -> Result<(), Refusal> {
    match deadline {
        None => tokio::time::sleep(pause).await,
        Some(deadline) => tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = deadline => return Err(Refusal::Timeout),
        },
    }
    Ok(())
}

/// Hands the answer on: whole if all of it is here already, else as a stream that keeps the seat to its end.
async fn deliver(
    response: Response<Incoming>,
    marks: Marks,
    driver: Driver,
    visit: Visit,
    busy: Busy,
    clocks: Clocks,
) -> Response<Answer> {
    let farewell = if marks.has(Marks::GRPC) {
        Farewell::Grpc
    } else if marks.has(Marks::CONTENT_LENGTH) {
        Farewell::Break
    } else {
        Farewell::Text
    };
    let (parts, incoming) = response.into_parts();
    let mut download = Download::new(incoming, driver, visit, clocks, farewell);
    let whole = poll_fn(|cx| std::task::Poll::Ready(download.read_ahead(cx))).await;
    let answer = match whole {
        Some(bytes) => Answer::Whole(bytes),
        None => {
            download.keep_busy(busy);
            Answer::Streamed(Box::new(download))
        }
    };
    Response::from_parts(parts, answer)
}
