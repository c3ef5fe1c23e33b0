//! The three timeouts of a Revision (spec/serving.md 6.3.4).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::world::*;

const SHORT: Duration = Duration::from_millis(150);

/// Waits before the head, sends a chunk, waits, sends another, and ends.
async fn halting(before: Duration, between: Duration) -> std::net::SocketAddr {
    container(move |request| async move {
        tokio::time::sleep(before).await;
        let steps = futures_util::stream::unfold(0, move |step| async move {
            match step {
                0 => Some((Ok(Frame::data(Bytes::from_static(b"first "))), 1)),
                1 => {
                    tokio::time::sleep(between).await;
                    Some((Ok(Frame::data(Bytes::from_static(b"second"))), 2))
                }
                _ => None,
            }
        });
        let mut response = http::Response::new(StreamBody::new(steps).boxed());
        if request.uri().path() == "/events" {
            response
                .headers_mut()
                .insert("content-type", "text/event-stream".parse().unwrap());
        }
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_clock_cuts_what_it_should() {
    let long = Duration::from_secs(3600);
    let none = Duration::ZERO;
    struct Case {
        what: &'static str,
        timeouts: [Duration; 3],
        container: [Duration; 2],
        path: &'static str,
        status: u16,
        body: &'static str,
    }
    let cases = [
        Case {
            what: "total before the head",
            timeouts: [SHORT, none, none],
            container: [long, none],
            path: "/",
            status: 504,
            body: "request timeout",
        },
        Case {
            what: "response start before the head",
            timeouts: [long, SHORT, none],
            container: [long, none],
            path: "/",
            status: 504,
            body: "request timeout",
        },
        Case {
            what: "idle before the head",
            timeouts: [long, none, SHORT],
            container: [long, none],
            path: "/",
            status: 504,
            body: "request timeout",
        },
        Case {
            what: "total within the body",
            timeouts: [SHORT, none, none],
            container: [none, long],
            path: "/",
            status: 200,
            body: "first request timeout",
        },
        Case {
            what: "idle within the body",
            timeouts: [long, none, SHORT],
            container: [none, long],
            path: "/",
            status: 200,
            body: "first request timeout",
        },
        Case {
            what: "in time",
            timeouts: [long, SHORT, SHORT],
            container: [none, none],
            path: "/",
            status: 200,
            body: "first second",
        },
        Case {
            what: "response start is met",
            timeouts: [long, SHORT, none],
            container: [none, SHORT * 2],
            path: "/",
            status: 200,
            body: "first second",
        },
        Case {
            what: "events outlive the total",
            timeouts: [SHORT, none, none],
            container: [none, SHORT * 2],
            path: "/events",
            status: 200,
            body: "first second",
        },
    ];
    let run = cases.into_iter().map(|case| async move {
        let mut world = World::start().await;
        let mut backend = backend(
            "one",
            &[halting(case.container[0], case.container[1]).await],
        );
        [
            backend.timeout,
            backend.response_start_timeout,
            backend.idle_timeout,
        ] = case.timeouts;
        world.one(backend).await;
        let got = get(world.external, "one.test", case.path).await;
        assert_eq!(
            (got.status.as_u16(), got.body.trim()),
            (case.status, case.body),
            "{}",
            case.what
        );
        eventually("the slot is free", || world.handle.in_flight() == 0).await;
    });
    futures_util::future::join_all(run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_counts() {
    let mut world = World::start().await;
    let mut backend = backend("one", &[]);
    backend.timeout = SHORT;
    world.one(backend).await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(
        (got.status.as_u16(), got.body.trim()),
        (504, "activator request timeout")
    );
    assert_eq!(world.handle.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_length_is_broken_rather_than_faked() {
    let mut world = World::start().await;
    let short = container(|_| async {
        let steps = futures_util::stream::unfold(0, |step| async move {
            if step > 0 {
                std::future::pending::<()>().await;
            }
            Some((Ok(Frame::data(Bytes::from_static(b"part"))), 1))
        });
        let mut response = http::Response::new(StreamBody::new(steps).boxed());
        response
            .headers_mut()
            .insert("content-length", "1000".parse().unwrap());
        response
    })
    .await;
    let mut backend = backend("one", &[short]);
    backend.timeout = SHORT;
    world.one(backend).await;
    let request = http::Request::get("/")
        .header("host", "one.test")
        .body(empty())
        .unwrap();
    let response = H1::to(world.external).await.send(request).await;
    assert_eq!(response.status(), 200);
    assert!(
        within(response.into_body().collect()).await.is_err(),
        "the client must notice"
    );
}
