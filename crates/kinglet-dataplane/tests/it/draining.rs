//! Requests under way when their pod goes, in every way it can go (spec/serving.md 6.3.6).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use kinglet_decide::feed::{Key, Protocol, ServiceBackend, Update};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::world::*;

/// How a pod leaves the data plane.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Departure {
    /// Scale-down, `delete pod`, rollout: the endpoint leaves, then the node drains.
    EndpointThenDrain,
    /// The node is faster than the endpoints.
    DrainThenEndpoint,
    /// `delete ksvc`: the whole backend leaves, then the node drains.
    BackendThenDrain,
}

const DEPARTURES: [Departure; 3] = [
    Departure::EndpointThenDrain,
    Departure::DrainThenEndpoint,
    Departure::BackendThenDrain,
];

/// A container whose responses wait for `gate`, and one byte of whose body waits for it as well.
struct Gated {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
}

async fn gated() -> Gated {
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let address = container({
        let (gate, begun) = (gate.clone(), begun.clone());
        move |request: Request<Incoming>| {
            let (gate, begun) = (gate.clone(), begun.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                if request.uri().path() == "/stream" {
                    let steps =
                        futures_util::stream::unfold((0, gate), |(step, gate)| async move {
                            if step == 2 {
                                return None;
                            }
                            if step == 1 {
                                gate.acquire().await.unwrap().forget();
                            }
                            let text = ["first ", "last"][step];
                            Some((
                                Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
                                (step + 1, gate),
                            ))
                        });
                    return http::Response::new(StreamBody::new(steps).boxed());
                }
                gate.acquire().await.unwrap().forget();
                reply("whole")
            }
        }
    })
    .await;
    Gated {
        address,
        gate,
        begun,
    }
}

/// Lets the pod of `one` go, in the given way; the task ends when it is drained.
async fn depart(world: &mut World, how: Departure, ip: std::net::IpAddr) -> JoinHandle<()> {
    let leave = match how {
        Departure::BackendThenDrain => None,
        _ => Some(Arc::new(backend("one", &[]))),
    };
    let leave = Update::Revision(Key::new("ns", "one"), leave);
    if how == Departure::DrainThenEndpoint {
        let drained = tokio::spawn(world.handle.drain_pod(ip));
        world.updates.send(leave).await.unwrap();
        world.settle().await;
        return drained;
    }
    world.updates.send(leave).await.unwrap();
    world.settle().await;
    tokio::spawn(world.handle.drain_pod(ip))
}

/// The request that `start` begins outlives each departure: the pod is not drained before it has ended.
async fn survives<R, S, F>(protocol: Protocol, start: S, finished: impl Fn(R))
where
    R: Send + 'static,
    S: Fn(SocketAddr) -> F,
    F: Future<Output = R> + Send + 'static,
{
    for how in DEPARTURES {
        let mut world = World::start().await;
        let gated = gated().await;
        let mut backend = backend("one", &[gated.address]);
        backend.protocol = protocol;
        world.one(backend).await;
        let request = tokio::spawn(start(world.external));
        eventually("the container has it", || {
            gated.begun.load(Ordering::SeqCst) == 1
        })
        .await;
        let drained = depart(&mut world, how, gated.address.ip()).await;
        tokio::task::yield_now().await;
        assert!(!drained.is_finished(), "{how:?}: a request is under way");
        gated.gate.add_permits(1);
        finished(within(request).await.unwrap());
        within(drained).await.unwrap();
        assert_eq!(gated.begun.load(Ordering::SeqCst), 1, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http1_request_finishes() {
    survives(
        Protocol::Http1,
        |gateway| get(gateway, "one.test", "/"),
        |got| assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "whole")),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_response_finishes() {
    survives(
        Protocol::Http1,
        |gateway| get(gateway, "one.test", "/stream"),
        |got| {
            assert_eq!(
                (got.status.as_u16(), got.body.as_str()),
                (200, "first last")
            )
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_finishes() {
    for path in ["/", "/stream"] {
        survives(
            Protocol::H2c,
            move |gateway| async move {
                let mut client = h2(gateway).await;
                let request = Request::get(format!("http://one.test{path}"))
                    .body(empty())
                    .unwrap();
                collect(client.send_request(request).await.unwrap()).await
            },
            move |got| {
                let body = if path == "/" { "whole" } else { "first last" };
                assert_eq!((got.status.as_u16(), got.body.as_str()), (200, body));
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_goes_on() {
    for how in DEPARTURES {
        let mut world = World::start().await;
        let shouting = capitals().await;
        world.one(backend("one", &[shouting])).await;
        let mut client = TcpStream::connect(world.external).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut client, "HI ").await;
        let drained = depart(&mut world, how, shouting.ip()).await;
        client.write_all(b"abc").await.unwrap();
        assert_eq!(read_until(&mut client, "ABC").await, "ABC");
        assert!(!drained.is_finished(), "{how:?}: the connection is open");
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        within(client.read_to_string(&mut rest)).await.unwrap();
        assert_eq!(rest, "BYE");
        within(drained).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_an_ordinary_service_finishes() {
    let mut world = World::start().await;
    let gated = gated().await;
    let service = |ports| {
        let ports = ServiceBackend {
            ports,
            ..ServiceBackend::default()
        };
        Update::Service(Key::new("ns", "one"), Some(Arc::new(ports)))
    };
    let update = service(vec![(80, vec![gated.address])]);
    world.updates.send(update).await.unwrap();
    world
        .route(vec![rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    let gateway = world.external;
    let request = tokio::spawn(async move { get(gateway, "one.test", "/").await });
    eventually("the container has it", || {
        gated.begun.load(Ordering::SeqCst) == 1
    })
    .await;
    // The port leaves, then the Service.
    world.updates.send(service(Vec::new())).await.unwrap();
    let gone = Update::Service(Key::new("ns", "one"), None);
    world.updates.send(gone).await.unwrap();
    world.settle().await;
    let drained = tokio::spawn(world.handle.drain_pod(gated.address.ip()));
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    gated.gate.add_permits(1);
    assert_eq!(within(request).await.unwrap().body, "whole");
    within(drained).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_takes_no_new_request() {
    let mut world = World::start().await;
    let gated = gated().await;
    let mut before = backend("one", &[gated.address]);
    before.container_concurrency = 1;
    world.one(before).await;
    let gateway = world.external;
    let request = tokio::spawn(async move { get(gateway, "one.test", "/").await });
    eventually("the container has it", || {
        gated.begun.load(Ordering::SeqCst) == 1
    })
    .await;
    let mut after = backend("one", &[says("other").await]);
    after.container_concurrency = 1;
    world.revision(after).await;
    world.settle().await;
    for _ in 0..5 {
        assert_eq!(get(world.external, "one.test", "/").await.body, "other");
    }
    gated.gate.add_permits(1);
    assert_eq!(within(request).await.unwrap().body, "whole");
    assert_eq!(gated.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_ready_again_keeps_its_count() {
    let mut world = World::start().await;
    let gated = gated().await;
    let mut ready = backend("one", &[gated.address]);
    ready.container_concurrency = 1;
    world.one(ready.clone()).await;
    let gateway = world.external;
    let request = || tokio::spawn(async move { get(gateway, "one.test", "/").await });
    let first = request();
    eventually("the container has it", || {
        gated.begun.load(Ordering::SeqCst) == 1
    })
    .await;
    let mut unready = ready.clone();
    unready.endpoints = Vec::new();
    world.revision(unready).await;
    world.revision(ready).await;
    world.settle().await;
    let second = request();
    eventually("the second waits", || world.handle.in_flight() == 2).await;
    assert_eq!(
        gated.begun.load(Ordering::SeqCst),
        1,
        "its one slot is taken"
    );
    gated.gate.add_permits(2);
    assert_eq!(within(first).await.unwrap().body, "whole");
    assert_eq!(within(second).await.unwrap().body, "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_deleted_revision_end_at_once() {
    let options = kinglet_dataplane::Options {
        // Longer than the test's patience: only the deletion can end the wait.
        unknown_backend_wait: PATIENCE * 10,
        ..kinglet_dataplane::Options::default()
    };
    let mut world = World::with(options).await;
    let mut asleep = backend("one", &[]);
    asleep.timeout = PATIENCE * 10;
    world.one(asleep).await;
    let gateway = world.external;
    let waiting: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { get(gateway, "one.test", "/").await }))
        .collect();
    eventually("they wait", || world.handle.in_flight() == 3).await;
    let gone = Update::Revision(Key::new("ns", "one"), None);
    world.updates.send(gone).await.unwrap();
    for request in waiting {
        let got = within(request).await.unwrap();
        assert_eq!(
            (got.status.as_u16(), got.body.trim()),
            (
                404,
                "Error getting active endpoint: revision.serving.knative.dev \"one\" not found"
            )
        );
    }
    // The route table that still names it was made before the deletion.
    assert_eq!(get(world.external, "one.test", "/").await.status, 404);
    assert_eq!(world.handle.in_flight(), 0);
    // One made after it promises that the Revision comes again.
    world.settle().await;
    let waiting = tokio::spawn(async move { get(gateway, "one.test", "/").await });
    eventually("it waits", || world.handle.in_flight() == 1).await;
    world.revision(backend("one", &[says("again").await])).await;
    assert_eq!(within(waiting).await.unwrap().body, "again");
}
