//! The controllers' way to the API server on a bad day.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kinglet_apiserver::{ApiServer, Identity};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use tower::ServiceExt as _;

use crate::random::Random;

/// How often what goes wrong, as "once in so many calls"; 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    /// A write is refused as a conflict without being made.
    pub(crate) conflict: u64,
    /// A write is made, but its answer is lost.
    pub(crate) lost: u64,
    /// The reconciler panics in place of a write.
    pub(crate) panic: u64,
    /// A watch ends after each event with this chance.
    pub(crate) watch_ends: u64,
    /// Longest delay of a call and of an event.
    pub(crate) delay_ms: u64,
}

impl Odds {
    pub(crate) const CALM: Self = Self {
        conflict: 0,
        lost: 0,
        panic: 0,
        watch_ends: 0,
        delay_ms: 0,
    };
    pub(crate) const BAD_DAY: Self = Self {
        conflict: 12,
        lost: 25,
        panic: 40,
        watch_ends: 40,
        delay_ms: 40,
    };
    /// Nothing fails, but everything is late by its own measure.
    pub(crate) const LATE: Self = Self {
        delay_ms: 60,
        ..Self::CALM
    };
}

/// Whether the faults are on, and what was called. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    on: Arc<AtomicBool>,
    /// Method, path and query of each call.
    calls: Arc<Mutex<Vec<String>>>,
}

impl Switch {
    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The controllers' calls since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// A client whose calls fail as `odds` and `random` have it while `switch` is on.
pub(crate) fn client(
    api: &ApiServer,
    identity: Identity,
    odds: Odds,
    random: Random,
    switch: Switch,
) -> kube::Client {
    let service = api.service(identity);
    let faulty = tower::service_fn(move |request: Request<Body>| {
        let (service, random, switch) = (service.clone(), random.clone(), switch.clone());
        call(service, request, odds, random, switch)
    });
    kube::Client::new(faulty, "default")
}

fn call(
    service: kinglet_apiserver::ApiService,
    request: Request<Body>,
    odds: Odds,
    random: Random,
    switch: Switch,
) -> BoxFuture<'static, Result<Answer, Infallible>> {
    async move {
        let write = request.method() != Method::GET;
        let query = request.uri().query().unwrap_or_default().to_owned();
        // Events and other bookkeeping have tasks of their own, which nobody would start again.
        let of_controller =
            query.contains("-controller") && !request.uri().path().ends_with("/events");
        let watch = query.contains("watch=");
        let called = format!("{} {}", request.method(), request.uri());
        switch.calls.lock().push(called);
        let on = switch.is_on();
        if on {
            tokio::time::sleep(random.up_to_ms(odds.delay_ms)).await;
        }
        if on && write && random.once_in(odds.conflict) {
            return Ok(refusal(409, "Conflict"));
        }
        assert!(
            !(on && write && of_controller && random.once_in(odds.panic)),
            "injected: a reconciler ends between two writes"
        );
        let answer = service.oneshot(request).await?;
        if on && write && random.once_in(odds.lost) {
            return Ok(refusal(503, "ServiceUnavailable"));
        }
        Ok(if watch {
            answer.map(|body| broken_watch(body, odds, random, switch))
        } else {
            answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync())
        })
    }
    .boxed()
}

/// Delivers events late and ends early.
fn broken_watch<B>(
    body: B,
    odds: Odds,
    random: Random,
    switch: Switch,
) -> UnsyncBoxBody<Bytes, std::io::Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let frames = stream::unfold(Some(body), move |body| {
        let (random, switch) = (random.clone(), switch.clone());
        async move {
            let mut body = body?;
            let frame = body.frame().await?;
            if switch.is_on() {
                tokio::time::sleep(random.up_to_ms(odds.delay_ms)).await;
                if random.once_in(odds.watch_ends) {
                    return Some((
                        Err(std::io::Error::other("injected: the watch broke")),
                        None,
                    ));
                }
            }
            Some((frame.map_err(std::io::Error::other), Some(body)))
        }
    });
    StreamBody::new(frames)
        .map_frame(|frame: Frame<Bytes>| frame)
        .boxed_unsync()
}

fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("injected: {reason}"),
    });
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(
            Full::new(Bytes::from(status.to_string()))
                .map_err(|never: Infallible| match never {})
                .boxed_unsync(),
        )
        .expect("a response of constant parts")
}
