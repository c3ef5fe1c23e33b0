//! Clients that shut down their side of the connection, and clients that go.

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

/// Sends `bytes`, shuts the sending side down, and reads until the gateway closes.
pub(crate) async fn half_closed(gateway: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Answers with what the path asks for, after as many milliseconds as it says.
pub(crate) async fn sized() -> SocketAddr {
    container(|request: Request<Incoming>| async move {
        let mut words = request.uri().path()[1..].split('/').map(str::to_owned);
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let (bytes, milliseconds) = (number(), number() as u64);
        let body = request.into_body().collect().await.map(|_| ()).is_ok();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        if body {
            reply(vec![b'x'; bytes])
        } else {
            reply("")
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_request_is_answered() {
    let mut world = World::start().await;
    world.one(backend("one", &[sized().await])).await;
    for (path, bytes) in [
        ("/5", 5),
        ("/5/200", 5),
        ("/100000", 100_000),
        ("/8000000", 8_000_000),
    ] {
        for rest in [
            "\r\n",
            "Content-Length: 3\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: one.test\r\n{rest}");
            let answer = half_closed(world.external, &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            assert!(
                head.starts_with("HTTP/1.1 200"),
                "{request:?}: {answer:.300}"
            );
            assert_eq!(body.len(), bytes, "{request:?}: {head}");
        }
    }
    eventually("no slot is held", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_request_is_answered_after_a_cold_start() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let gateway = world.external;
    let asked = tokio::spawn(async move {
        half_closed(gateway, "GET /5 HTTP/1.1\r\nHost: one.test\r\n\r\n").await
    });
    world.next_poke().await;
    world.revision(backend("one", &[sized().await])).await;
    let answer = asked.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_as_long_as_it_moves() {
    let mut world = World::start().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..6 {
            stream.write_all(b"4\r\ntick\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    });
    world.one(backend("one", &[address])).await;
    let answer = half_closed(world.external, "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
    assert_eq!(answer.matches("tick").count(), 6, "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn part_of_a_request_is_closed_at_once() {
    let mut world = World::start().await;
    world.one(backend("one", &[sized().await])).await;
    let parts = [
        "",
        "G",
        "PRI * HT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1",
        "GET /<x> HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: one.test\r\n",
        "GET / HTTP/1.1\nHost: one.test\n",
        "POST /5 HTTP/1.1\r\nHost: one.test\r\nContent-Length: 30\r\n\r\nabc",
        "POST /5 HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc",
        "POST /5 HTTP/1.1\r\nHost: other.test\r\nContent-Length: 30\r\n\r\nabc",
        "GET /5 HTTP/1.1\r\nHost: one.test\r\n\r\nGET /5 HTTP/1.1\r\nHo",
    ];
    // Who has sent a whole request is waited for, one second each: that would take longer than all of this may.
    assert!(Duration::from_secs(1) * u32::try_from(parts.len()).unwrap() > PATIENCE);
    within(async {
        for part in parts {
            let answer = half_closed(world.external, part).await;
            assert!(!answer.contains("xxxxxx"), "{part:?}: {answer}");
        }
    })
    .await;
    eventually("no slot is held", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_leaves_container_and_queue() {
    let mut world = World::start().await;
    let stuck = container(|_| std::future::pending()).await;
    world.one(backend("one", &[stuck])).await;
    let requests = [
        "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: one.test\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    for endpoints in [vec![stuck], Vec::new()] {
        world.revision(backend("one", &endpoints)).await;
        world.settle().await;
        for request in requests {
            let mut client = TcpStream::connect(world.external).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            eventually("it is in flight", || world.handle.in_flight() == 1).await;
            drop(client);
            eventually("it has gone", || world.handle.in_flight() == 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_comes_before_the_body_is_not_lost() {
    let mut world = World::start().await;
    let hasty = container(|_| async {
        let mut response = reply("too large");
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        response
    });
    world.one(backend("one", &[hasty.await])).await;
    for host in ["one.test", "other.test"] {
        let mut client = TcpStream::connect(world.external).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3000000\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // As most clients do: first all of the body, then the response.
        for _ in 0..300 {
            if client.write_all(&[b'x'; 10_000]).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = if host == "one.test" { "413" } else { "404" };
        assert!(answer.contains(status), "{host}: {answer}");
    }
}

/// Every beginning of every seed of the fuzz target `request_head`, each followed by the client's end.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_sends_before_its_end_the_connection_is_closed() {
    let world = World::start().await;
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/request_head");
    let mut tried = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = seed.unwrap().path();
        let bytes = std::fs::read(&seed).unwrap();
        let clients = (0..=bytes.len()).map(|end| {
            let (gateway, part, seed) = (world.external, &bytes[..end], &seed);
            async move {
                let mut stream = TcpStream::connect(gateway).await.unwrap();
                stream.write_all(part).await.unwrap();
                stream.shutdown().await.ok();
                let mut answer = Vec::new();
                let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
                assert!(closed.is_ok(), "{}: {end} bytes", seed.display());
            }
        });
        tried += futures_util::future::join_all(clients).await.len();
    }
    assert!(tried > 300, "{tried}");
}
