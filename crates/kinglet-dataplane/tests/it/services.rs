//! Containers that come, go and die while requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_costs_no_request() {
    let mut world = World::start().await;
    let dead = listen().await.local_addr().unwrap();
    for concurrency in [0, 1, 10] {
        let mut backend = backend("one", &[dead, says("alive").await]);
        backend.container_concurrency = concurrency;
        world.one(backend).await;
        let mut client = H1::to(world.external).await;
        for _ in 0..20 {
            assert_eq!(client.get("one.test", "/").await.body, "alive");
        }
        let request = Request::post("/")
            .header("host", "one.test")
            .body(full("a body"))
            .unwrap();
        assert_eq!(collect(client.send(request).await).await.body, "alive");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_endpoint_may_come_back_or_be_replaced() {
    let mut world = World::start().await;
    let listener = listen().await;
    let dead = listener.local_addr().unwrap();
    drop(listener);
    world.one(backend("one", &[dead])).await;
    let address = world.external;
    let request = tokio::spawn(async move { get(address, "one.test", "/").await });
    eventually("it tries", || world.handle.in_flight() == 1).await;
    world.revision(backend("one", &[])).await;
    assert_eq!(world.next_poke().await.name.as_ref(), "one");
    world
        .revision(backend("one", &[says("replaced").await]))
        .await;
    assert_eq!(within(request).await.unwrap().body, "replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_listens_is_502_in_the_end() {
    let options = kinglet_dataplane::Options {
        connect_patience: Duration::from_millis(100),
        ..Default::default()
    };
    let mut world = World::with(options).await;
    let dead = listen().await.local_addr().unwrap();
    world.one(backend("one", &[dead])).await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(got.status, 502);
    assert!(
        got.body.starts_with(&format!(
            "connecting to pod pod-{} of ns/one: ",
            dead.port()
        )),
        "{}",
        got.body
    );
}

/// Closes each connection after one answer without having said so.
async fn forgetful() -> std::net::SocketAddr {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_while_idle_is_not_used_again() {
    let mut world = World::start().await;
    world.one(backend("one", &[forgetful().await])).await;
    let mut client = H1::to(world.external).await;
    for _ in 0..20 {
        assert_eq!(client.get("one.test", "/").await.body, "ok");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_breaks_off_is_502() {
    let mut world = World::start().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
        }
    });
    world.one(backend("one", &[address])).await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(got.status, 502);
    assert!(
        got.body.contains("broke off before it answered"),
        "{}",
        got.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_a_pod_waits_for_its_requests_and_sends_no_more() {
    let mut world = World::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let slow = listener.local_addr().unwrap();
    tokio::spawn({
        let (gate, begun) = (gate.clone(), begun.clone());
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (gate, begun) = (gate.clone(), begun.clone());
                tokio::spawn(async move {
                    read_until(&mut stream, "\r\n\r\n").await;
                    begun.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
                        .await
                        .unwrap();
                });
            }
        }
    });
    let mut first = backend("one", &[slow]);
    first.container_concurrency = 5;
    world.one(first).await;
    let address = world.external;
    let request = tokio::spawn(async move { get(address, "one.test", "/").await });
    eventually("it has begun", || begun.load(Ordering::SeqCst) == 1).await;
    let drained = Arc::new(AtomicBool::new(false));
    let draining = world.handle.drain_pod(slow.ip());
    tokio::spawn({
        let drained = drained.clone();
        async move {
            draining.await;
            drained.store(true, Ordering::SeqCst);
        }
    });
    // The control plane still lists the old pod beside the new one; nothing goes to it.
    let mut both = backend("one", &[slow, says("new").await]);
    both.container_concurrency = 5;
    world.one(both).await;
    for _ in 0..10 {
        assert_eq!(get(world.external, "one.test", "/").await.body, "new");
    }
    assert!(
        !drained.load(Ordering::SeqCst),
        "one request is still there"
    );
    gate.add_permits(1);
    assert_eq!(within(request).await.unwrap().body, "slow");
    eventually("drained", || drained.load(Ordering::SeqCst)).await;
    within(world.handle.drain_pod(slow.ip())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_containers_are_replaced() {
    let mut world = World::start().await;
    let mut addresses = Vec::new();
    for _ in 0..4 {
        addresses.push(says("ok").await);
    }
    world.one(backend("one", &addresses[..1])).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (address, stop) = (world.external, stop.clone());
            tokio::spawn(async move {
                let mut client = H1::to(address).await;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let method = if number % 2 == 0 { "GET" } else { "POST" };
                    let body = if number % 2 == 0 {
                        empty()
                    } else {
                        full("payload")
                    };
                    let request = Request::builder()
                        .method(method)
                        .uri("/")
                        .header("host", "one.test")
                        .body(body)
                        .unwrap();
                    assert_eq!(collect(client.send(request).await).await.body, "ok");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..60 {
        let from = round % 4;
        let set: Vec<_> = (0..round % 3)
            .map(|step| addresses[(from + step) % 4])
            .collect();
        world.one(backend("one", &set)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.one(backend("one", &addresses)).await;
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for client in clients {
        total += within(client).await.expect("no request failed");
    }
    assert!(total > 100, "{total}");
    assert_eq!(world.handle.in_flight(), 0);
}
