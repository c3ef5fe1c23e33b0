//! Asking queue-proxies for their statistics.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kinglet_decide::feed::Stat;
use kinglet_decide::scale::scrape;
use kinglet_decide::wire::{STAT_BYTES_MAX, decode_stat};
use tokio::net::TcpStream;

/// One queue-proxy's time to answer (Knative's).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Room for the head of an answer; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 << 10;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");

/// A ready pod of a Revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueProxy {
    /// Where its statistics are: the pod's address, port 9090.
    pub address: SocketAddr,
    /// Since the pod's start.
    pub age: Duration,
}

/// Why a round gave no statistic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// Every pod asked was hidden behind a proxy, which answered 502 or 503 in its place.
    #[error("no pod can be asked by its address, a proxy answers for all of them")]
    Mesh,
    /// There are no pods left to ask.
    #[error("{answered} of {needed} pods answered, the others did not: {last}")]
    Exhausted {
        /// Pods that answered.
        answered: usize,
        /// Answers that a statistic needs.
        needed: usize,
        /// What the last failure was.
        last: String,
    },
}

/// Why one pod gave no statistic.
enum Failure {
    Mesh,
    Other(String),
}

/// Asks the queue-proxies of Revisions. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Scraper {
    random: fn() -> u64,
}

impl Default for Scraper {
    fn default() -> Self {
        Self {
            random: super::random,
        }
    }
}

impl Scraper {
    /// One round over the `ready` pods of a Revision with this stable window. `None` when there are no pods.
    pub async fn scrape(
        &self,
        ready: &[QueueProxy],
        stable: Duration,
    ) -> Result<Option<Stat>, ScrapeError> {
        let below = |below: usize| {
            let below = u64::try_from(below).unwrap_or(u64::MAX).max(1);
            usize::try_from((self.random)() % below).unwrap_or(0)
        };
        let pods = ready.iter().map(|pod| (pod.address, pod.age));
        let plan = scrape::plan(pods, stable, below);
        let next = AtomicUsize::new(0);
        let mut askers: FuturesUnordered<_> = (0..plan.needed)
            .map(|_| ask_one_of(&plan.order, &next))
            .collect();
        let (mut samples, mut failures) = (Vec::new(), Vec::new());
        while let Some((sample, failed)) = askers.next().await {
            samples.extend(sample);
            failures.extend(failed);
        }
        if samples.len() == plan.needed {
            return Ok(scrape::combine(&samples, ready.len()));
        }
        let last = failures.iter().rev().find_map(|failure| match failure {
            Failure::Mesh => None,
            Failure::Other(why) => Some(why.clone()),
        });
        if samples.is_empty() && last.is_none() {
            return Err(ScrapeError::Mesh);
        }
        Err(ScrapeError::Exhausted {
            answered: samples.len(),
            needed: plan.needed,
            last: last.unwrap_or_else(|| "a proxy answered with 502 or 503".to_owned()),
        })
    }
}

/// Takes pods from `order` until one answers. Answers with the failures before, too.
async fn ask_one_of(order: &[SocketAddr], next: &AtomicUsize) -> (Option<Stat>, Vec<Failure>) {
    let mut failures = Vec::new();
    while let Some(address) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, ask(*address));
        match asked.await {
            Ok(Ok(stat)) => return (Some(stat), failures),
            Ok(Err(failure)) => failures.push(failure),
            Err(_) => failures.push(Failure::Other(format!(
                "{address} did not answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }
    (None, failures)
}

async fn ask(address: SocketAddr) -> Result<Stat, Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(format!("{address}: {error}"));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| other(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| other(&error))?;
    let request = Request::get("/metrics")
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, PROTOBUF)
        .body(Empty::<Bytes>::new())
        .map_err(|error| other(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|error| other(&error))?, address).await
    };
    tokio::pin!(exchange);
    tokio::select! {
        read = &mut exchange => read,
        // What was read before the end is still to be had.
        _ = connection => exchange.await,
    }
}

async fn read(response: Response<Incoming>, address: SocketAddr) -> Result<Stat, Failure> {
    let status = response.status();
    if matches!(status.as_u16(), 502 | 503) {
        return Err(Failure::Mesh);
    }
    if !status.is_success() {
        return Err(Failure::Other(format!("{address} answered {status}")));
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind != Some(&PROTOBUF) {
        let words = format!("{address} answered with {kind:?} instead of application/protobuf");
        return Err(Failure::Other(words));
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < STAT_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| Failure::Other(format!("{address}: {error}")))?;
        if let Some(data) = frame.data_ref() {
            let room = STAT_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&data[..room.min(data.len())]);
        }
    }
    match decode_stat(&bytes) {
        Ok((_, stat)) => Ok(stat),
        Err(error) => Err(Failure::Other(format!("{address}: {error}"))),
    }
}
