//! Protocols other than plain HTTP/1 through a cold start: they wait as everything does, and are served whole.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use kinglet_decide::feed::{Key, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_waits_with_its_messages_and_has_its_trailers() {
    let mut world = World::start().await;
    let mut asleep = backend("one", &[]);
    asleep.protocol = Protocol::H2c;
    world.one(asleep.clone()).await;
    let mut client = h2(world.external).await;
    let messages = futures_util::stream::iter(
        ["one ", "two ", "three"]
            .map(|message| Ok(Frame::data(Bytes::from_static(message.as_bytes())))),
    );
    let request = Request::post("http://one.test/p.P/Collect")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(messages).boxed())
        .unwrap();
    let response = tokio::spawn(async move { client.send_request(request).await });
    assert_eq!(world.next_poke().await, Key::new("ns", "one"));
    let awake = container(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
        let frames = futures_util::stream::iter(frames);
        http::Response::new(StreamBody::new(frames).boxed())
    });
    asleep.endpoints = endpoints(&[awake.await]);
    world.revision(asleep).await;
    let response = within(response).await.unwrap().unwrap();
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "one two three");
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_waits_with_what_the_client_said_after_it() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let mut client = TcpStream::connect(world.external).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: one.test\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\nearly";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    world.next_poke().await;
    world.revision(backend("one", &[capitals().await])).await;
    let head = read_until(&mut client, "EARLY").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client.write_all(b" late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    within(client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, " LATEBYE");
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_sent_meanwhile_arrives_whole() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let gateway = world.external;
    let sent = "x".repeat(300_000);
    let body = sent.clone();
    let request = tokio::spawn(async move {
        let request = Request::post("/")
            .header("host", "one.test")
            .body(full(body))
            .unwrap();
        collect(H1::to(gateway).await.send(request).await).await
    });
    world.next_poke().await;
    let echo = container(|request: Request<Incoming>| async move {
        http::Response::new(request.into_body().boxed())
    });
    world.revision(backend("one", &[echo.await])).await;
    let got = within(request).await.unwrap();
    assert_eq!((got.status.as_u16(), got.body.len()), (200, sent.len()));
}
