//! Connections to containers that end when they should not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use kinglet_decide::feed::Protocol;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::world::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A container that gives each request of a connection its step of `script`, and closes at the end of it. An empty step
/// closes without a word. Counts requests.
async fn scripted(
    script: &'static [&'static str],
    pause: Duration,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                for step in script {
                    if !has_request(&mut stream).await {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    if step.is_empty() {
                        return;
                    }
                    stream.write_all(step.as_bytes()).await.ok();
                }
                tokio::time::sleep(pause).await;
            });
        }
    });
    (address, requests)
}

/// Reads a head, and what little body came with it.
async fn has_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match tokio::io::AsyncReadExt::read(stream, &mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_closes_after_each_response_costs_no_get() {
    let mut world = World::start().await;
    let (address, _) = scripted(&[OK], Duration::from_millis(1)).await;
    world.one(backend("one", &[address])).await;
    let clients = (0..4).map(|client| {
        let gateway = world.external;
        async move {
            let mut connection = H1::to(gateway).await;
            for number in 0..500 {
                let got = connection.get("one.test", "/").await;
                assert_eq!(
                    got.status, 200,
                    "request {number} of {client}: {}",
                    got.body
                );
                if number % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_what_go_sends_again() {
    struct Case {
        method: Method,
        key: Option<&'static str>,
        body: &'static str,
        again: bool,
    }
    let case = |method, key, body, again| Case {
        method,
        key,
        body,
        again,
    };
    let cases = [
        case(Method::GET, None, "", true),
        case(Method::HEAD, None, "", true),
        case(Method::OPTIONS, None, "", true),
        case(Method::TRACE, None, "", true),
        case(Method::POST, None, "", false),
        case(Method::PUT, None, "", false),
        case(Method::DELETE, None, "", false),
        case(Method::POST, Some("idempotency-key"), "", true),
        case(Method::POST, Some("x-idempotency-key"), "", true),
        case(Method::POST, Some("idempotency-key"), "body", false),
    ];
    for case in cases {
        let what = format!("{} {:?} {:?}", case.method, case.key, case.body);
        let mut world = World::start().await;
        // The second request of each connection is read and never answered.
        let (address, requests) = scripted(&[OK, ""], Duration::ZERO).await;
        world.one(backend("one", &[address])).await;
        let mut client = H1::to(world.external).await;
        assert_eq!(client.get("one.test", "/").await.status, 200);
        let mut request = Request::builder()
            .method(case.method)
            .uri("/again?x=1")
            .header("host", "one.test");
        if let Some(key) = case.key {
            request = request.header(key, "k");
        }
        let response = client.send(request.body(full(case.body)).unwrap()).await;
        let status = if case.again { 200 } else { 502 };
        assert_eq!(response.status(), status, "{what}");
        let sent = 2 + usize::from(case.again);
        assert_eq!(requests.load(Ordering::SeqCst), sent, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_a_third_time_or_after_a_byte_of_a_response() {
    for (script, sent) in [
        // Fresh connections are not tried again.
        (&[""][..], 1),
        (&["HTTP/1.1 20"][..], 1),
        (&["HTTP/1.1 100 Continue\r\n\r\n"][..], 1),
        // A byte of the second response, then the end.
        (&[OK, "H"][..], 2),
    ] {
        let mut world = World::start().await;
        let (address, requests) = scripted(script, Duration::ZERO).await;
        world.one(backend("one", &[address])).await;
        let mut client = H1::to(world.external).await;
        let mut status = 0;
        for _ in 0..script.len() {
            status = client.get("one.test", "/").await.status.as_u16();
        }
        assert_eq!(status, 502, "{script:?}");
        assert_eq!(requests.load(Ordering::SeqCst), sent, "{script:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_seen_to_break_off() {
    for (response, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "abc",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde",
            "abcde",
        ),
    ] {
        let mut world = World::start().await;
        let script: &'static [&'static str] = Box::leak(Box::new([response]));
        let (address, _) = scripted(script, Duration::ZERO).await;
        world.one(backend("one", &[address])).await;
        let seen = raw(world.external, "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{response:?}: {seen:?}");
        let rest = &seen[seen.find("\r\n\r\n").expect("a whole head") + 4..];
        if response.contains("chunked") {
            assert!(!rest.contains("0\r\n\r\n"), "not a whole body: {rest:?}");
            assert!(rest.contains("abc"), "{rest:?}");
        } else {
            assert!(
                seen.to_lowercase().contains("content-length: 10"),
                "{seen:?}"
            );
            assert_eq!(rest, body);
        }
        let mut client = h2(world.external).await;
        let request = Request::get("http://one.test/").body(empty()).unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut incoming = response.into_body();
        let mut got = Vec::new();
        let ended = loop {
            match within(incoming.frame()).await {
                Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
                other => break other,
            }
        };
        assert!(matches!(ended, Some(Err(_))), "the stream is reset");
        assert_eq!(String::from_utf8_lossy(&got), body);
        eventually("the slot is free", || world.handle.in_flight() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_that_cannot_be_passed_on_are_refused() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let answer = raw(
        world.external,
        "POST / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert!(answer.contains("Unsupported transfer encoding"), "{answer}");
    let (address, _) = scripted(
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
        Duration::ZERO,
    )
    .await;
    world.one(backend("one", &[address])).await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(got.status, 502, "{}", got.body);
    assert!(
        got.body.contains("unsupported transfer encoding"),
        "{}",
        got.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_container_that_breaks_off_gets_a_get_once_more() {
    let mut world = World::start().await;
    // Serves one stream per connection, then ends without a word.
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                let mut body = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                body.send_data(bytes::Bytes::from_static(b"ok"), true)
                    .unwrap();
                // The next request is read; then the connection is dropped.
                let _ = connection.accept().await;
            });
        }
    });
    let mut one = backend("one", &[address]);
    one.protocol = Protocol::H2c;
    world.one(one).await;
    let mut client = h2(world.external).await;
    for _ in 0..6 {
        let request = Request::get("http://one.test/").body(empty()).unwrap();
        let got = collect(within(client.send_request(request)).await.unwrap()).await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "ok"));
    }
}
