//! Bodies: streamed both ways at once, early answers, and the corners of HTTP/1.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::*;

fn streamed(
    mut chunks: mpsc::Receiver<Bytes>,
) -> http_body_util::combinators::BoxBody<Bytes, Infallible> {
    let stream = futures_util::stream::poll_fn(move |cx| {
        chunks
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    });
    StreamBody::new(stream).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_is_full_duplex() {
    let mut world = World::start().await;
    let echo = container(|request: Request<Incoming>| async move {
        http::Response::new(request.into_body().boxed())
    })
    .await;
    world.one(backend("one", &[echo])).await;
    let (chunks, body) = mpsc::channel(1);
    let request = Request::post("/")
        .header("host", "one.test")
        .body(streamed(body))
        .unwrap();
    let mut client = H1::to(world.external).await;
    chunks.send(Bytes::from_static(b"0")).await.unwrap();
    let mut answer = client.send(request).await.into_body();
    for number in 0..20u8 {
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
    assert_eq!(within(answer.collect()).await.unwrap().to_bytes().len(), 1);
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    let mut world = World::start().await;
    let echo = container(|request: Request<Incoming>| async move {
        http::Response::new(request.into_body().boxed())
    })
    .await;
    world.one(backend("one", &[echo])).await;
    let big = Bytes::from(
        (0..3_000_000u32)
            .map(|number| (number % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let request = Request::post("/")
        .header("host", "one.test")
        .body(full(big.clone()))
        .unwrap();
    let answer = H1::to(world.external).await.send(request).await.into_body();
    assert_eq!(within(answer.collect()).await.unwrap().to_bytes(), big);
    let request = Request::post("http://one.test/")
        .body(full(big.clone()))
        .unwrap();
    let answer = within(h2(world.external).await.send_request(request))
        .await
        .unwrap()
        .into_body();
    assert_eq!(within(answer.collect()).await.unwrap().to_bytes(), big);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_before_the_request_has_ended() {
    let mut world = World::start().await;
    let hasty = container(|_| async {
        let mut response = reply("too large");
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        response
    });
    world.one(backend("one", &[hasty.await])).await;
    let (chunks, body) = mpsc::channel(1);
    let request = Request::post("/")
        .header("host", "one.test")
        .body(streamed(body))
        .unwrap();
    chunks
        .send(Bytes::from_static(b"the beginning of much"))
        .await
        .unwrap();
    let got = collect(H1::to(world.external).await.send(request).await).await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (413, "too large"));
    drop(chunks);
    eventually("the slot is free", || world.handle.in_flight() == 0).await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_by_the_container() {
    let mut world = World::start().await;
    let asked = container(|request: Request<Incoming>| async move {
        if request.uri().path() == "/no" {
            let mut response = reply("no");
            *response.status_mut() = http::StatusCode::EXPECTATION_FAILED;
            return response;
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        reply(body)
    });
    world.one(backend("one", &[asked.await])).await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: one.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client.write_all(head("/").as_bytes()).await.unwrap();
    let told = read_until(&mut client, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 100"), "{told}");
    client.write_all(b"hello").await.unwrap();
    assert!(
        read_until(&mut client, "hello")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client.write_all(head("/no").as_bytes()).await.unwrap();
    let told = read_until(&mut client, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 417"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_empty_answers_keep_their_length_and_connection() {
    let mut world = World::start().await;
    let quiet = container(|request: Request<Incoming>| async move {
        let mut response = reply(if request.uri().path() == "/empty" {
            ""
        } else {
            "12345"
        });
        if request.uri().path() == "/unchanged" {
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            *response.body_mut() = reply("").into_body();
        }
        response
    });
    world.one(backend("one", &[quiet.await])).await;
    let mut client = H1::to(world.external).await;
    let request = Request::head("/")
        .header("host", "one.test")
        .body(empty())
        .unwrap();
    let got = collect(client.send(request).await).await;
    assert_eq!(
        (got.headers["content-length"].as_bytes(), got.body.as_str()),
        (&b"5"[..], "")
    );
    assert_eq!(client.get("one.test", "/empty").await.body, "");
    assert_eq!(client.get("one.test", "/unchanged").await.status, 304);
    assert_eq!(client.get("one.test", "/").await.body, "12345");
}

#[tokio::test(flavor = "multi_thread")]
async fn http10_is_answered_and_closed() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let answer = raw(world.external, "GET / HTTP/1.0\r\nHost: one.test\r\n\r\n").await;
    assert!(
        answer.contains("200 OK") && answer.contains("host: one.test"),
        "{answer}"
    );
    let answer = raw(
        world.external,
        "GET http://one.test/x HTTP/1.1\r\nHost: ignored\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.contains("GET /x HTTP/1.1") && answer.contains("host: one.test"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_read_late() {
    let mut world = World::start().await;
    let big = container(|_| async { reply(vec![b'x'; 4_000_000]) });
    world.one(backend("one", &[big.await])).await;
    let mut client = TcpStream::connect(world.external).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut answer = Vec::new();
    within(tokio::io::AsyncReadExt::read_to_end(
        &mut client,
        &mut answer,
    ))
    .await
    .unwrap();
    assert!(answer.len() > 4_000_000);
}
