//! An activator's socket to the autoscaler: connected for as long as the process lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use kinglet_decide::feed::Report;
use kinglet_decide::wire::{WireStat, encode_stats};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::metrics::StatConnection;

/// Connecting and upgrading (Knative's).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// An autoscaler that does not take a frame for this long is left.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);
/// A goodbye is sent, not waited for.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Reports in one frame; more wait for the next one.
const BATCH_MAX: usize = 4096;
/// The autoscaler says nothing but pongs and goodbyes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Each retry waits this much longer than the one before (Knative's).
const BACKOFF_FACTOR: f64 = 1.3;
/// Up to this share is added at random (Knative's).
const BACKOFF_JITTER: f64 = 0.5;
/// After so many retries the waits begin anew (Knative's): the longest is 22 s.
const BACKOFF_STEPS: i32 = 20;
/// While a request waits for a pod, connecting is tried again at least this often.
const URGENT_RETRY: Duration = Duration::from_secs(1);

/// How to speak with the autoscaler.
#[derive(Clone, Debug)]
pub struct StatClientOptions {
    /// Host and port, `autoscaler.knative-serving.svc.cluster.local:8080`.
    pub authority: String,
    /// How often the connection is tried (Knative: a third of `pong_timeout`).
    pub ping_every: Duration,
    /// Without a pong for this long, the connection is dead.
    pub pong_timeout: Duration,
    /// Wait before the first retry.
    pub first_retry: Duration,
}

impl StatClientOptions {
    /// Knative's times.
    pub fn new(authority: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            ping_every: Duration::from_millis(3_333),
            pong_timeout: Duration::from_secs(10),
            first_retry: Duration::from_millis(100),
        }
    }
}

/// Sends the reports of a data plane to the autoscaler.
pub struct StatClient {
    options: StatClientOptions,
    random: fn() -> u64,
    connected: watch::Sender<bool>,
    /// Attempts that failed, and connections that were lost.
    errors: Arc<AtomicU64>,
}

/// Why a client has nothing more to do.
enum Ended {
    /// It was asked to stop, or nobody reports any more.
    Done,
    /// The connection is lost, for this reason.
    Lost(String),
}

type Socket = WebSocketStream<TcpStream>;

impl StatClient {
    /// A client that is not connected yet.
    pub fn new(options: StatClientOptions) -> Self {
        Self {
            options,
            random: super::random,
            connected: watch::Sender::new(false),
            errors: Arc::default(),
        }
    }

    /// Whether there is a connection: an activator without one is not ready (spec/serving.md 6.2.1).
    pub fn is_connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// The same, and how often it failed, for metrics.
    pub fn connection(&self) -> StatConnection {
        StatConnection {
            connected: self.connected.subscribe(),
            errors: Arc::clone(&self.errors),
        }
    }

    /// Sends what comes in as `reports` until `stop`, or until nobody reports any more. `reports` never waits long: while
    /// there is no connection, statistics are dropped.
    pub async fn run(self, mut reports: mpsc::Receiver<Report>, stop: CancellationToken) {
        let mut outbox = Outbox::default();
        let mut step = 0;
        loop {
            let connected = tokio::select! {
                () = stop.cancelled() => return,
                connected = self.connected(&mut outbox, &mut reports, &mut step) => connected,
            };
            let Some(mut socket) = connected else { return };
            self.connected.send_replace(true);
            tracing::info!(autoscaler = %self.options.authority, "statistics are sent to the autoscaler");
            match self
                .speak(&mut socket, &mut outbox, &mut reports, &stop)
                .await
            {
                Ended::Done => {
                    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, socket.close(None)).await;
                    return;
                }
                Ended::Lost(why) => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(autoscaler = %self.options.authority, %why, "the connection to the autoscaler is lost, it is made again");
                }
            }
            self.connected.send_replace(false);
            outbox.not_heard();
        }
    }

    /// Connects, however long it takes; reports are taken meanwhile. `None` when nobody reports any more.
    async fn connected(
        &self,
        outbox: &mut Outbox,
        reports: &mut mpsc::Receiver<Report>,
        step: &mut i32,
    ) -> Option<Socket> {
        loop {
            let attempt = self.connect();
            tokio::pin!(attempt);
            let why = loop {
                tokio::select! {
                    connected = &mut attempt => match connected {
                        Ok(socket) => {
                            *step = 0;
                            return Some(socket);
                        }
                        Err(why) => break why,
                    },
                    report = reports.recv() => {
                        outbox.take(report?, false);
                    }
                }
            };
            self.errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(autoscaler = %self.options.authority, %why, "the autoscaler is not reached");
            if *step == 0 {
                tracing::warn!(autoscaler = %self.options.authority, %why, "the autoscaler is not reached, it is tried again until it is");
            }
            let until = Instant::now() + self.backoff(*step);
            *step = (*step + 1) % BACKOFF_STEPS;
            self.wait(until, outbox, reports).await?;
        }
    }

    async fn wait(
        &self,
        mut until: Instant,
        outbox: &mut Outbox,
        reports: &mut mpsc::Receiver<Report>,
    ) -> Option<()> {
        loop {
            if outbox.is_urgent() {
                until = until.min(Instant::now() + URGENT_RETRY);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Some(()),
                report = reports.recv() => {
                    outbox.take(report?, false);
                }
            }
        }
    }

    fn backoff(&self, step: i32) -> Duration {
        let share =
            f64::from(u32::try_from((self.random)() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        let factor = BACKOFF_FACTOR.powi(step) * (1.0 + BACKOFF_JITTER * share);
        self.options.first_retry.mul_f64(factor)
    }

    async fn connect(&self) -> Result<Socket, String> {
        let handshake = async {
            let authority = &*self.options.authority;
            let request = format!("ws://{authority}/")
                .into_client_request()
                .map_err(|error| error.to_string())?;
            let stream = TcpStream::connect(authority)
                .await
                .map_err(|error| error.to_string())?;
            stream
                .set_nodelay(true)
                .map_err(|error| error.to_string())?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(ANSWER_BYTES_MAX))
                .max_frame_size(Some(ANSWER_BYTES_MAX));
            let upgraded =
                tokio_tungstenite::client_async_with_config(request, stream, Some(config));
            upgraded
                .await
                .map(|(socket, _)| socket)
                .map_err(|error| error.to_string())
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(connected) => connected,
            Err(_) => Err(format!(
                "no connection within {} s",
                HANDSHAKE_TIMEOUT.as_secs()
            )),
        }
    }

    async fn speak(
        &self,
        socket: &mut Socket,
        outbox: &mut Outbox,
        reports: &mut mpsc::Receiver<Report>,
        stop: &CancellationToken,
    ) -> Ended {
        let spoken = tokio::select! {
            () = stop.cancelled() => return Ended::Done,
            spoken = self.speak_on(socket, outbox, reports) => spoken,
        };
        match spoken {
            Ok(()) => Ended::Done,
            Err(why) => Ended::Lost(why),
        }
    }

    /// Ends well when nobody reports any more.
    async fn speak_on(
        &self,
        socket: &mut Socket,
        outbox: &mut Outbox,
        reports: &mut mpsc::Receiver<Report>,
    ) -> Result<(), String> {
        send(socket, &outbox.waiting()).await?;
        let mut pings = tokio::time::interval_at(
            Instant::now() + self.options.ping_every,
            self.options.ping_every,
        );
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ponged = Instant::now();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = reports.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    let all: Vec<WireStat> = batch
                        .drain(..)
                        .filter_map(|report| outbox.take(report, true))
                        .collect();
                    send(socket, &all).await?;
                }
                heard = socket.next() => match heard {
                    Some(Ok(Message::Pong(_))) => ponged = Instant::now(),
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map_or(1005, |frame| u16::from(frame.code));
                        // Our own goodbye, so that the autoscaler does not wait for it.
                        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, socket.flush()).await;
                        return Err(format!("the autoscaler closed it with code {code}"));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the autoscaler closed it".to_owned()),
                },
                _ = pings.tick() => {
                    if ponged.elapsed() >= self.options.pong_timeout {
                        let waited = self.options.pong_timeout;
                        return Err(format!("no pong for {waited:?}"));
                    }
                    within(socket.send(Message::Ping(Bytes::new()))).await?;
                }
            }
        }
    }
}

async fn send(socket: &mut Socket, all: &[WireStat]) -> Result<(), String> {
    if all.is_empty() {
        return Ok(());
    }
    let frame = encode_stats(all.iter().map(|one| (&one.revision, &*one.pod, &one.stat)));
    within(socket.send(Message::binary(frame))).await
}

async fn within(sent: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    match tokio::time::timeout(SEND_TIMEOUT, sent).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it takes nothing for {} s", SEND_TIMEOUT.as_secs())),
    }
}
