//! A load generator: keep-alive connections that ask as fast as they are answered, and count what they get.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered with 2xx.
    pub good: u64,
    /// Everything else, by what it was.
    pub bad: BTreeMap<String, u64>,
    /// Body (trimmed) -> times seen, for splits. At most 64 different ones.
    pub bodies: BTreeMap<String, u64>,
    /// Latencies of good requests in microseconds, unsorted.
    pub latencies_us: Vec<u32>,
}

impl Tally {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.bad.values().sum()
    }

    /// A latency percentile in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let all: Vec<f64> = self.latencies_us.iter().copied().map(f64::from).collect();
        percentile(&all, percent) / 1000.0
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        for (what, count) in other.bad {
            *self.bad.entry(what).or_default() += count;
        }
        for (body, count) in other.bodies {
            *self.bodies.entry(body).or_default() += count;
        }
        self.latencies_us.extend(other.latencies_us);
    }
}

/// Value at a percentile of unsorted samples; no number where there are none.
pub fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list of some millions, rounded and clamped"
    )]
    let place = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    let index = place.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: JoinSet<Tally>,
}

/// Starts `connections` clients asking `host` at `path`, each pausing `pause` after an answer.
pub fn start(gateway: &str, host: &str, path: &str, connections: usize, pause: Duration) -> Load {
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (gateway, host, path) = (gateway.to_owned(), host.to_owned(), path.to_owned());
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) =
                    connection(&gateway, &host, &path, pause, &stop, &done, &mut tally).await
                {
                    *tally.bad.entry(error).or_default() += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            tally
        });
    }
    Load { stop, done, tasks }
}

impl Load {
    /// Requests finished so far, good and bad.
    pub fn finished(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends after the requests under way.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            total.add(tally.unwrap_or_default());
        }
        total
    }
}

/// Asks on one connection until it is told to stop or the server closes in good order between two requests.
async fn connection(
    gateway: &str,
    host: &str,
    path: &str,
    pause: Duration,
    stop: &AtomicBool,
    done: &AtomicU64,
    tally: &mut Tally,
) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(gateway)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| format!("handshake: {error}"))?;
    let driver = tokio::task::spawn(connection);
    let outcome = async {
        while !stop.load(Ordering::Relaxed) {
            if sender.ready().await.is_err() {
                // Closed between two requests: allowed at any time, and a new connection is opened.
                return Ok(());
            }
            let request = http::Request::get(path)
                .header(http::header::HOST, host)
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            let began = Instant::now();
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| format!("request: {error}"))?;
            let status = answer.status();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| format!("body: {error}"))?
                .to_bytes();
            done.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            if status.is_success() {
                tally.good += 1;
                tally
                    .latencies_us
                    .push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                if tally.bodies.len() < 64 || tally.bodies.contains_key(&text) {
                    *tally.bodies.entry(text).or_default() += 1;
                }
            } else {
                *tally.bad.entry(format!("{status}: {text}")).or_default() += 1;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }
    .await;
    driver.abort();
    outcome
}
