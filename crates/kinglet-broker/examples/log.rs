//! Measures the engines: `cargo xtask bench log` runs it. Arguments: what to measure, then a folder on the disk that is meant.
//!
//! `rates`: appends/s at 1, 32 and 64 senders, durable and in memory, and deliveries with three subscriptions.
//! `backlog N`: memory with N events that a subscription has not taken, then the time that a restart takes.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement: real clocks, and a failure ends it"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use kinglet_broker::engine::log::{LogEngine, Options};
use kinglet_broker::engine::memory::MemoryEngine;
use kinglet_broker::engine::{
    ChannelId, ChannelLog, Engine, Headers, Order, Outcome, Retention, StoredEvent, Uid,
};
use kinglet_decide::feed::Key;
use kinglet_process::{Clock, Tasks};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rates", dir] => runtime.block_on(rates(Path::new(dir))),
        ["backlog", count, dir] => {
            runtime.block_on(backlog(count.parse().unwrap(), Path::new(dir)))
        }
        _ => println!("rates DIR | backlog COUNT DIR"),
    }
}

fn channel(name: &str) -> ChannelId {
    ChannelId {
        kind: "DurableChannel".into(),
        key: Key::new("default", name),
        uid: name.into(),
    }
}

const LARGE: Retention = Retention {
    bytes_max: 1 << 40,
    age_max: Duration::from_secs(1 << 20),
};

fn event(body: &Bytes) -> StoredEvent {
    StoredEvent {
        arrived: Timestamp::now(),
        headers: Headers::new([
            ("ce-id", &b"6c9a9b3e-4a45-4a43-9d5b-2f6f1f4f9a10"[..]),
            ("ce-source", b"/bench"),
            ("ce-type", b"dev.knative.bench"),
            ("ce-specversion", b"1.0"),
            ("content-type", b"application/json"),
        ]),
        body: body.clone(),
    }
}

async fn rates(dir: &Path) {
    let tasks = Tasks::new();
    let dir = tempfile::tempdir_in(dir).unwrap();
    let durable = LogEngine::start(Options::system(dir.path(), &Clock::system()), &tasks).unwrap();
    let memory = MemoryEngine::new(&tasks);
    let engines: [(&str, &dyn Engine); 2] = [("durable", &durable), ("memory", &memory)];
    for (name, engine) in engines {
        for senders in [1, 32, 64] {
            let id = channel(&format!("append-{name}-{senders}"));
            let log = engine.open(&id, LARGE).await.unwrap();
            let (rate, times) = append(&log, senders, Duration::from_secs(4)).await;
            println!(
                "{name:<8} {senders:>2} senders: {rate:>7.0} appends/s, p50 {:>5} µs, p99 {:>6} µs",
                times[times.len() / 2].as_micros(),
                times[times.len() * 99 / 100].as_micros()
            );
            drop(log);
            engine.remove(&id).await.unwrap();
        }
        deliver(name, engine).await;
    }
    println!("stopped: {}", tasks.shutdown(Duration::from_secs(10)).await);
}

/// Appends from as many tasks for a while. Answers with the rate and the sorted times.
async fn append(log: &Arc<dyn ChannelLog>, senders: usize, time: Duration) -> (f64, Vec<Duration>) {
    let body = Bytes::from(vec![b'x'; 1_000]);
    let began = Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..senders {
        let (log, body) = (Arc::clone(log), body.clone());
        sending.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let sent = Instant::now();
                log.append(event(&body)).await.unwrap();
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times = sending.join_all().await.concat();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort();
    (rate, times)
}

/// 32 senders and three subscriptions that take everything.
async fn deliver(name: &str, engine: &dyn Engine) {
    let id = channel(&format!("deliver-{name}"));
    let log = engine.open(&id, LARGE).await.unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let mut subscribers = tokio::task::JoinSet::new();
    for number in 0..3 {
        let uid: Uid = format!("subscription-{number}").into();
        let mut cursor = log.subscribe(&uid, Order::Unordered).unwrap();
        let taken = Arc::clone(&taken);
        subscribers.spawn(async move {
            while let Ok(delivered) = cursor.next().await {
                delivered.receipt.finished(Outcome::Delivered);
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let began = Instant::now();
    let (rate, _) = append(&log, 32, Duration::from_secs(4)).await;
    let all = 3 * (log.status().head.0 - 1);
    while taken.load(Ordering::Relaxed) < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "{name:<8} 32 senders, 3 subscriptions: {rate:>7.0} appends/s, {:>7.0} deliveries/s",
        all as f64 / began.elapsed().as_secs_f64()
    );
    drop(log);
    engine.remove(&id).await.unwrap();
    subscribers.shutdown().await;
}

async fn backlog(count: u64, dir: &Path) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let id = channel("backlog");
    let uid: Uid = "slow".into();
    let before = resident();
    let tasks = Tasks::new();
    let engine = LogEngine::start(Options::system(dir.path(), &Clock::system()), &tasks).unwrap();
    let log = engine.open(&id, LARGE).await.unwrap();
    let mut cursor = log.subscribe(&uid, Order::Unordered).unwrap();
    let first = cursor_first(&log, &mut cursor).await;
    let began = Instant::now();
    let body = Bytes::from(vec![b'x'; 1_000]);
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..512 {
        let (log, body) = (Arc::clone(&log), body.clone());
        sending.spawn(async move {
            while log.status().head.0 < count {
                log.append(event(&body)).await.unwrap();
            }
        });
    }
    sending.join_all().await;
    println!(
        "{count} events appended in {:.1} s, {:.2} GB; resident {:.1} MB before, {:.1} MB now; backlog {}",
        began.elapsed().as_secs_f64(),
        log.status().bytes as f64 / 1e9,
        before,
        resident(),
        cursor.backlog()
    );
    first.finished(Outcome::Delivered);
    drop((cursor, log));
    println!("stopped: {}", tasks.shutdown(Duration::from_secs(10)).await);
    drop(engine);

    let tasks = Tasks::new();
    let began = Instant::now();
    let engine = LogEngine::start(Options::system(dir.path(), &Clock::system()), &tasks).unwrap();
    let log = engine.open(&id, LARGE).await.unwrap();
    println!(
        "opened again in {:.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    let mut cursor = log.subscribe(&uid, Order::Unordered).unwrap();
    let next = cursor.next().await.unwrap();
    println!(
        "position {} in hand after {:.1} ms",
        next.position,
        began.elapsed().as_secs_f64() * 1e3
    );
    next.receipt.finished(Outcome::Delivered);
    let began = Instant::now();
    let taking = count.min(1_000_000);
    for _ in 0..taking {
        let delivered = cursor.next().await.unwrap();
        delivered.receipt.finished(Outcome::Delivered);
    }
    println!(
        "{:.0} events/s read back by one subscription; resident {:.1} MB",
        taking as f64 / began.elapsed().as_secs_f64(),
        resident()
    );
    let began = Instant::now();
    drop((cursor, log));
    engine.remove(&id).await.unwrap();
    println!("removed in {:.2} s", began.elapsed().as_secs_f64());
    tasks.shutdown(Duration::from_secs(10)).await;
}

/// Takes one event in hand, so that the subscription's place is in the log.
async fn cursor_first(
    log: &Arc<dyn ChannelLog>,
    cursor: &mut Box<dyn kinglet_broker::engine::Cursor>,
) -> kinglet_broker::engine::Receipt {
    log.append(event(&Bytes::from_static(b"first")))
        .await
        .unwrap();
    cursor.next().await.unwrap().receipt
}

/// Resident megabytes of this process.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kb: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kb / 1024.0
}
