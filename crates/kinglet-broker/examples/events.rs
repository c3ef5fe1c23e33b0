//! Measures the data plane: `cargo xtask bench broker` runs it.
//!
//! `rates PORT PROXIES SECONDS DIR`: the sink's port, the address of the proxies before it, seconds per run, and a folder on the
//! disk that is meant. Senders, broker and sink are in one process and speak HTTP/1.1 over sockets: events of 1 kB, each sender one at a time.
//! `plain`: to the sink. `proxies`: through two nginx. `memory` and `durable`: ingress, filter, one subscriber.
//!
//! `triggers COUNT`: memory for each Trigger of one Broker, and what an event costs that one in a hundred matches, without
//! sockets.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement: real clocks, and a failure ends it"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use kinglet_broker::engine::log::{LogEngine, Options as LogOptions};
use kinglet_broker::engine::memory::MemoryEngine;
use kinglet_broker::engine::{ChannelId, Engine};
use kinglet_broker::feed::{
    Access, BrokerRoute, ChannelRoute, Delivery, Destination, Key, Subscriber, TriggerRoute, Update,
};
use kinglet_broker::transport::{Direct, OwnNetwork};
use kinglet_broker::{Handle, NoAuthority, Options, Transport, listen};
use kinglet_decide::call::{Answer, CallBody, HttpService};
use kinglet_events::Filter;
use kinglet_events::filter::TriggerFilter;
use kinglet_process::{Clock, Tasks};
use tokio::net::TcpListener;

struct Sink(Arc<AtomicU64>);

impl HttpService for Sink {
    fn call(&self, request: http::Request<CallBody>) -> Answer<'_> {
        Box::pin(async move {
            let _ = request.into_body().collect().await;
            self.0.fetch_add(1, Ordering::Relaxed);
            let body: CallBody = Box::pin(Empty::new().map_err(|never| match never {}));
            let mut answer = http::Response::new(body);
            *answer.status_mut() = http::StatusCode::ACCEPTED;
            answer
        })
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    kinglet_process::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rates", port, proxies, seconds, dir] => {
            let seconds = Duration::from_secs(seconds.parse().unwrap());
            runtime.block_on(run(port.parse().unwrap(), proxies, seconds, Path::new(dir)));
        }
        ["triggers", count] => runtime.block_on(triggers(count.parse().unwrap())),
        _ => println!("rates PORT PROXIES SECONDS DIR | triggers COUNT"),
    }
}

/// Takes everything, without a socket.
struct Nowhere(AtomicU64);

impl Transport for Nowhere {
    fn send<'a>(
        &'a self,
        _: &'a Destination,
        _: http::Request<Bytes>,
    ) -> futures_util::future::BoxFuture<
        'a,
        Result<http::Response<CallBody>, kinglet_broker::TransportError>,
    > {
        self.0.fetch_add(1, Ordering::Relaxed);
        let body: CallBody = Box::pin(Empty::new().map_err(|never| match never {}));
        Box::pin(std::future::ready(Ok(http::Response::new(body))))
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

async fn triggers(count: usize) {
    const EVENTS: u64 = 2000;
    let tasks = Tasks::new();
    let memory: Arc<dyn Engine> = Arc::new(MemoryEngine::new(&tasks));
    let nowhere = Arc::new(Nowhere(AtomicU64::new(0)));
    let options = Options {
        engines: HashMap::from([("Memory".into(), memory)]),
        transport: nowhere.clone(),
        tokens: Arc::new(NoAuthority),
        verify: Arc::new(NoAuthority),
        clock: Clock::system(),
        system_namespace: "knative-eventing".into(),
        shortcuts: true,
        ttl_default: 255,
    };
    let (handle, _reports) = Handle::new(options, &tasks);
    let before = resident_bytes();
    let mut channel = channel_route(Vec::new());
    for number in 0..count {
        let name = format!("t{number}");
        // One in a hundred is of the type that is sent.
        let kind = format!("type{}", number % 100);
        let key = Key::new("ns", &*name);
        let route = trigger_route(&kind, "http://sink.ns.svc.cluster.local/");
        handle
            .apply(Update::Trigger(key, Some(route)))
            .await
            .unwrap();
        channel.subscribers.push(subscriber(&name));
    }
    let id = channel_id("Memory");
    handle
        .apply(Update::Channel(id.clone(), Some(channel)))
        .await
        .unwrap();
    let key = Key::new("ns", "Memory");
    handle
        .apply(Update::Broker(key, Some(broker_route(id))))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let each = (resident_bytes() - before) / count as u64;
    let service = handle.ingress(false);
    let began = Instant::now();
    for number in 0..EVENTS {
        let body = http_body_util::Full::new(Bytes::from_static(b"{}"));
        let body: CallBody = Box::pin(body.map_err(|never| match never {}));
        let request = event("/ns/Memory", &number.to_string(), "type7")
            .body(body)
            .unwrap();
        assert_eq!(service.call(request).await.status(), 202);
    }
    let micros = began.elapsed().as_secs_f64() * 1e6 / EVENTS as f64;
    let matches = nowhere.0.load(Ordering::Relaxed) as f64 / EVENTS as f64;
    println!(
        "{count} Triggers: {each} bytes each; an event that {matches} of them match: {micros:.0} µs, with its deliveries"
    );
}

fn event(url: &str, id: &str, kind: &str) -> http::request::Builder {
    http::Request::post(url)
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-type", kind)
        .header("ce-source", "/bench")
        .header("content-type", "application/json")
}

async fn run(port: u16, proxies: &str, seconds: Duration, dir: &Path) {
    let tasks = Tasks::new();
    let clock = Clock::system();
    let taken = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    listen::serve(listener, Arc::new(Sink(taken.clone())), None, &tasks);
    let memory: Arc<dyn Engine> = Arc::new(MemoryEngine::new(&tasks));
    let durable: Arc<dyn Engine> =
        Arc::new(LogEngine::start(LogOptions::system(dir, &clock), &tasks).unwrap());
    let options = Options {
        engines: HashMap::from([("Memory".into(), memory), ("Durable".into(), durable)]),
        transport: Arc::new(Direct::new(OwnNetwork)),
        tokens: Arc::new(NoAuthority),
        verify: Arc::new(NoAuthority),
        clock,
        system_namespace: "knative-eventing".into(),
        shortcuts: true,
        ttl_default: 255,
    };
    let (handle, _reports) = Handle::new(options, &tasks);
    for kind in ["Memory", "Durable"] {
        broker(&handle, kind, &format!("http://127.0.0.1:{port}/")).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ingress = listener.local_addr().unwrap();
    listen::serve(listener, handle.ingress(false), None, &tasks);
    for senders in [1, 32, 64] {
        for (name, url) in [
            ("plain", format!("http://127.0.0.1:{port}/")),
            ("proxies", format!("http://{proxies}/")),
            ("memory", format!("http://{ingress}/ns/Memory")),
            ("durable", format!("http://{ingress}/ns/Durable")),
        ] {
            measure(name, &url, senders, seconds, &taken).await;
        }
    }
    handle.drain(Duration::from_secs(5)).await;
    tasks.shutdown(Duration::from_secs(5)).await;
}

async fn broker(handle: &Handle, kind: &str, sink: &str) {
    let id = channel_id(kind);
    let key = Key::new("ns", kind);
    for update in [
        Update::Trigger(key.clone(), Some(trigger_route("foo", sink))),
        Update::Channel(id.clone(), Some(channel_route(vec![subscriber(kind)]))),
        Update::Broker(key, Some(broker_route(id))),
    ] {
        handle.apply(update).await.unwrap();
    }
}

fn channel_id(kind: &str) -> ChannelId {
    ChannelId {
        kind: kind.into(),
        key: Key::new("ns", kind),
        uid: kind.into(),
    }
}

fn trigger_route(kind: &str, sink: &str) -> TriggerRoute {
    let filter = TriggerFilter {
        attributes: [("type".to_owned(), kind.to_owned())].into(),
    };
    TriggerRoute {
        uid: "u".into(),
        broker: Key::new("ns", "b"),
        filter: Arc::new(Filter::compile(Some(&filter), &[], None).0),
        subscriber: Some(Destination::plain(sink)),
        delivery: Delivery::default(),
        reply: None,
        identity: None,
        authenticates: false,
        auto_event_types: false,
    }
}

fn subscriber(trigger: &str) -> Subscriber {
    let services = "knative-eventing.svc.cluster.local";
    let filter = format!("http://broker-filter.{services}/triggers/ns/{trigger}/u");
    Subscriber {
        uid: trigger.into(),
        generation: 1,
        name: trigger.into(),
        subscriber: Some(Destination::plain(filter)),
        reply: Some(Destination::plain(format!(
            "http://broker-ingress.{services}/ns/Memory"
        ))),
        delivery: Delivery::default(),
        ordered: false,
        identity: None,
    }
}

fn channel_route(subscribers: Vec<Subscriber>) -> ChannelRoute {
    ChannelRoute {
        subscribers,
        asynchronous: false,
        access: Access::default(),
        retention: None,
        auto_event_types: false,
    }
}

fn broker_route(channel: ChannelId) -> BrokerRoute {
    BrokerRoute {
        uid: "b".into(),
        channel: Some(channel),
        address: None,
        access: Access::default(),
        auto_event_types: false,
    }
}

/// Sends for a while, then waits until the sink has all.
async fn measure(name: &str, url: &str, senders: u64, seconds: Duration, taken: &AtomicU64) {
    let client = Arc::new(Direct::new(OwnNetwork));
    let to = Arc::new(Destination::plain(url));
    let body = Bytes::from(vec![b'x'; 1000]);
    let before = taken.load(Ordering::Relaxed);
    let began = Instant::now();
    let running: Vec<_> = (0..senders)
        .map(|sender| {
            let (client, to, body) = (client.clone(), to.clone(), body.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < seconds {
                    let id = format!("{sender}-{}", latencies.len());
                    let request = event(&to.url, &id, "foo");
                    let sent = Instant::now();
                    let answer = client
                        .send(&to, request.body(body.clone()).unwrap())
                        .await
                        .unwrap();
                    assert_eq!(answer.status(), 202);
                    let _ = answer.into_body().collect().await;
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for one in running {
        latencies.extend(one.await.unwrap());
    }
    let sent = latencies.len() as u64;
    let accepted = sent as f64 / began.elapsed().as_secs_f64();
    while taken.load(Ordering::Relaxed) - before < sent {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let delivered = sent as f64 / began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{name:<8} {senders:>2} senders: {accepted:>7.0}/s answered, {delivered:>7.0}/s delivered, answer p50 {:.2} ms, p99 {:.2} ms",
        at(50),
        at(99)
    );
}
