//! Bounds on client connections: nobody starves anybody.

use std::net::SocketAddr;
use std::time::Duration;

use kinglet_dataplane::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n";

/// A connection from 127.0.0.`last`.
async fn from(last: u8, gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, last], 0)))
        .unwrap();
    within(socket.connect(gateway)).await.unwrap()
}

async fn is_served(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.ok();
    let mut answer = [0; 1024];
    let count = within(stream.read(&mut answer)).await.unwrap_or(0);
    answer[..count].starts_with(b"HTTP/1.1 200")
}

async fn with(options: Options) -> World {
    let mut world = World::with(options).await;
    world.one(backend("one", &[says("ok").await])).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_at_its_bound_loses_its_own_longest_idle_connection() {
    let world = with(Options {
        connections_loopback_max: 3,
        ..Options::default()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut stream = from(1, world.external).await;
        assert!(is_served(&mut stream).await);
        idle.push(stream);
    }
    for _ in 0..20 {
        let mut stream = from(1, world.external).await;
        assert!(is_served(&mut stream).await, "a new one is served");
        idle.push(stream);
        let mut gone = idle.remove(0);
        let mut rest = Vec::new();
        within(gone.read_to_end(&mut rest)).await.ok();
    }
    let mut other = from(2, world.external).await;
    assert!(is_served(&mut other).await, "another client is not touched");
    assert!(is_served(&mut idle[2]).await, "the newest is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_connections_are_all_busy_gets_no_more() {
    let mut world = World::with(Options {
        connections_loopback_max: 2,
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[])).await;
    let mut busy = Vec::new();
    for number in 1..=2 {
        let mut stream = from(1, world.external).await;
        stream.write_all(GET).await.unwrap();
        eventually("it waits", || world.handle.in_flight() == number).await;
        busy.push(stream);
    }
    assert!(!is_served(&mut from(1, world.external).await).await);
    world.revision(backend("one", &[says("ok").await])).await;
    for mut stream in busy {
        assert!(
            read_until(&mut stream, "ok")
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
    assert!(is_served(&mut from(2, world.external).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_at_the_bound_of_all() {
    let world = with(Options {
        connections_max: 4,
        ..Options::default()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(from(1, world.external).await);
    }
    for _ in 0..10 {
        let mut stream = from(2, world.external).await;
        assert!(is_served(&mut stream).await);
        idle.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_counts_as_a_connection() {
    let mut world = World::with(Options {
        connections_loopback_max: 1,
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[capitals().await])).await;
    let mut tunnel = from(1, world.external).await;
    let upgrade =
        "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\n";
    tunnel.write_all(upgrade.as_bytes()).await.unwrap();
    read_until(&mut tunnel, "HI ").await;
    assert!(!is_served(&mut from(1, world.external).await).await);
    tunnel.shutdown().await.unwrap();
    let mut rest = String::new();
    within(tunnel.read_to_string(&mut rest)).await.unwrap();
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
    world.one(backend("one", &[says("ok").await])).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_served(&mut from(1, world.external).await).await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the count goes down"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
