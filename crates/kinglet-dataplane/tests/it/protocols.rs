//! HTTP/2, gRPC, upgrades.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kinglet_decide::feed::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

/// Echoes each frame and ends with a status in the trailers, as a gRPC server does.
pub(crate) async fn grpc() -> std::net::SocketAddr {
    container(|request: Request<Incoming>| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        let body = request.into_body();
        let frames = futures_util::stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), Some(body))),
                Some(Err(error)) => Some((Err(error), None)),
                _ => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    Some((Ok(Frame::trailers(trailers)), None))
                }
            }
        });
        let mut response = http::Response::new(StreamBody::new(frames).boxed());
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_both_ways_and_keeps_its_trailers() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[grpc().await]);
    backend.protocol = Protocol::H2c;
    backend.container_concurrency = 10;
    world.one(backend).await;
    let mut client = h2(world.external).await;
    let (chunks, mut queue) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| {
        queue
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    });
    let request = Request::post("http://one.test/ping.Ping/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(stream).boxed())
        .unwrap();
    chunks.send(Bytes::from_static(b"0")).await.unwrap();
    let mut answer = within(client.send_request(request))
        .await
        .unwrap()
        .into_body();
    for number in 0..10u8 {
        let frame = within(answer.frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert_eq!(frame, Bytes::from(vec![b'0' + number]));
        chunks.send(Bytes::from(vec![b'1' + number])).await.unwrap();
    }
    drop(chunks);
    let rest = within(answer.collect()).await.unwrap();
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0");
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_few_connections() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[mirror().await]);
    backend.protocol = Protocol::H2c;
    world.one(backend).await;
    let client = h2(world.external).await;
    let requests = (0..200).map(|_| {
        let mut client = client.clone();
        async move {
            let request = Request::get("http://one.test/x")
                .header("cookie", "a=1")
                .body(empty())
                .unwrap();
            collect(client.send_request(request).await.unwrap()).await
        }
    });
    for got in futures_util::future::join_all(requests).await {
        assert!(
            got.body.starts_with("GET http://one.test/x HTTP/2.0"),
            "{}",
            got.body
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_clients_reach_http1_containers() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let mut client = h2(world.external).await;
    let request = Request::get("http://one.test/x")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(empty())
        .unwrap();
    let got = collect(client.send_request(request).await.unwrap()).await;
    assert!(
        got.body.starts_with("GET /x HTTP/1.1") && got.body.contains("host: one.test"),
        "{}",
        got.body
    );
    assert!(got.body.contains("cookie: a=1; b=2"), "{}", got.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_clients_reach_h2c_containers() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[mirror().await]);
    backend.protocol = Protocol::H2c;
    world.one(backend).await;
    let got = get(world.external, "one.test", "/x").await;
    assert!(
        got.body.starts_with("GET http://one.test/x HTTP/2.0"),
        "{}",
        got.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_speak_grpc_to_grpc_clients() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[]);
    backend.timeout = Duration::from_millis(50);
    world.one(backend).await;
    let request = Request::post("http://one.test/p.P/M")
        .header("content-type", "application/grpc")
        .body(empty())
        .unwrap();
    let got = collect(
        h2(world.external)
            .await
            .send_request(request)
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (
            got.headers["grpc-status"].as_bytes(),
            got.headers["grpc-message"].as_bytes()
        ),
        (&b"4"[..], &b"activator request timeout"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_a_tunnel_that_outlives_the_timeout_and_passes_half_close() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[capitals().await]);
    backend.timeout = Duration::from_millis(100);
    backend.container_concurrency = 1;
    world.one(backend).await;
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: capitals\r\n\r\n")
        .await
        .unwrap();
    let head = read_until(&mut client, "HI ").await;
    assert!(
        head.starts_with("HTTP/1.1 101") && head.to_lowercase().contains("upgrade: capitals"),
        "{head}"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.write_all(b"abc").await.unwrap();
    assert_eq!(read_until(&mut client, "ABC").await, "ABC");
    assert_eq!(world.handle.in_flight(), 1, "the slot is held");
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    within(client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "BYE");
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let mut world = World::start().await;
    world.one(backend("one", &[says("no").await])).await;
    let answer = raw(
        world.external,
        "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("no"),
        "{answer}"
    );
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_says_goodbye_costs_no_request() {
    let mut world = World::start().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let served = Arc::new(tokio::sync::Notify::new());
                let service = hyper::service::service_fn({
                    let served = served.clone();
                    move |_| {
                        served.notify_one();
                        async { Ok::<_, std::convert::Infallible>(reply("bye")) }
                    }
                });
                let builder =
                    hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                let mut connection =
                    std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = served.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            });
        }
    });
    let mut backend = backend("one", &[address]);
    backend.protocol = Protocol::H2c;
    world.one(backend).await;
    let mut client = h2(world.external).await;
    for _ in 0..50 {
        let request = Request::post("http://one.test/")
            .body(full("payload"))
            .unwrap();
        let got = collect(within(client.send_request(request)).await.unwrap()).await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "bye"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_leaves_its_seat() {
    let mut world = World::start().await;
    let stuck = container(|request: Request<Incoming>| async move {
        if request.uri().path() == "/stuck" {
            std::future::pending::<()>().await;
        }
        reply("free")
    });
    let mut backend = backend("one", &[stuck.await]);
    backend.container_concurrency = 1;
    backend.protocol = Protocol::H2c;
    world.one(backend).await;
    let mut client = h2(world.external).await;
    let request = Request::get("http://one.test/stuck").body(empty()).unwrap();
    let stuck = tokio::spawn(client.send_request(request));
    eventually("it is in flight", || world.handle.in_flight() == 1).await;
    stuck.abort();
    let request = Request::get("http://one.test/").body(empty()).unwrap();
    assert_eq!(
        collect(within(client.send_request(request)).await.unwrap())
            .await
            .body,
        "free"
    );
    eventually("nothing is in flight", || world.handle.in_flight() == 0).await;
}
