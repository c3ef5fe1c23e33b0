//! The response on its way back: whole, as a stream, or as a tunnel.

use std::future::poll_fn;

use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::{Held, ProxiedRequest, broken};
use crate::breaker::Slot;
use crate::headers::{self, HeaderFlags};
use crate::response::ResponseBody;
use crate::response_body::{ConnectionDriver, TimeoutResponse, Timeouts, UpstreamBody};
use crate::trace::{ColdStart, SERVER_TIMING, Timings};
use crate::tunnel::{self, CountedTunnel};

impl ProxiedRequest<'_> {
    pub(super) fn switch(
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
        let counted = CountedTunnel::new(&self.plane.tunnels);
        self.plane.connections.spawn("tunnel", async move {
            // Counted as a connection to the end.
            let _counted = (peer, counted);
            tokio::select! {
                () = killed.cancelled() => {}
                () = tunnel::run(client, container, held, timeouts) => {}
            }
        });
        headers::strip_hop(response.headers_mut(), flags, true);
        response.map(|_nothing| ResponseBody::Whole(None))
    }

    pub(super) fn note(
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

/// Hands the answer on: whole if all of it is here already, else as a stream that keeps the slot to its end.
pub(super) async fn deliver(
    response: Response<Incoming>,
    flags: HeaderFlags,
    driver: ConnectionDriver,
    held: Held,
    timeouts: Timeouts,
) -> Response<ResponseBody> {
    let text = held.slot.config.hop.timeout_text();
    let timeout_response = if flags.has(HeaderFlags::GRPC) {
        TimeoutResponse::GrpcStatus(text)
    } else if flags.has(HeaderFlags::CONTENT_LENGTH) {
        TimeoutResponse::Abort
    } else {
        TimeoutResponse::AppendText(text)
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
