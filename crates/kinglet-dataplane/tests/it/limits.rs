//! Slots: never too many, never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kinglet_dataplane::Options;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::world::*;

/// A container that notes how many requests it has at once, and takes a moment for each.
async fn counting(peak: Arc<AtomicUsize>) -> std::net::SocketAddr {
    let now = Arc::new(AtomicUsize::new(0));
    container(move |_| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            reply("counted")
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_never_sees_more_than_its_concurrency() {
    for (concurrency, containers) in [(1, 1), (1, 3), (3, 2), (5, 2)] {
        let mut world = World::start().await;
        let peak = Arc::new(AtomicUsize::new(0));
        let mut addresses = Vec::new();
        for _ in 0..containers {
            addresses.push(counting(peak.clone()).await);
        }
        let mut backend = backend("one", &addresses);
        backend.container_concurrency = concurrency;
        world.one(backend).await;
        let clients = (0..20).map(|_| async {
            let mut client = H1::to(world.external).await;
            for _ in 0..10 {
                assert_eq!(client.get("one.test", "/").await.status, 200);
            }
        });
        futures_util::future::join_all(clients).await;
        assert_eq!(
            peak.load(Ordering::SeqCst),
            concurrency as usize,
            "reached, not exceeded"
        );
        assert_eq!(world.handle.in_flight(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so() {
    let mut world = World::with(Options {
        queue_depth: 2,
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[])).await;
    let address = world.external;
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { get(address, "one.test", "/").await }))
        .collect();
    eventually("two wait", || world.handle.in_flight() == 2).await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(
        (got.status.as_u16(), got.body.trim()),
        (503, "pending request queue full")
    );
    waiting[0].abort();
    eventually("one wait", || world.handle.in_flight() == 1).await;
    let third = tokio::spawn(async move { get(address, "one.test", "/").await });
    eventually("two wait again", || world.handle.in_flight() == 2).await;
    world.revision(backend("one", &[says("ok").await])).await;
    assert_eq!(within(third).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_its_seat() {
    let mut world = World::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let slow = container({
        let (gate, begun) = (gate.clone(), begun.clone());
        move |_| {
            let (gate, begun) = (gate.clone(), begun.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                reply("done")
            }
        }
    })
    .await;
    let mut backend = backend("one", &[slow]);
    backend.container_concurrency = 1;
    world.one(backend).await;
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n")
        .await
        .unwrap();
    eventually("the container has it", || begun.load(Ordering::SeqCst) == 1).await;
    drop(client);
    let address = world.external;
    let next = tokio::spawn(async move { get(address, "one.test", "/").await });
    eventually("the next one has the slot", || {
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    gate.add_permits(2);
    assert_eq!(within(next).await.unwrap().status, 200);
    eventually("nothing is in flight", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_in_the_queue_leaves_its_place() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[]);
    backend.container_concurrency = 1;
    world.one(backend.clone()).await;
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n")
        .await
        .unwrap();
    eventually("it waits", || world.handle.in_flight() == 1).await;
    drop(client);
    eventually("it is gone", || world.handle.in_flight() == 0).await;
    backend.endpoints = endpoints(&[says("ok").await]);
    world.one(backend).await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 200);
}
