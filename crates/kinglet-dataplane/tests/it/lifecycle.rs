//! Stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use kinglet_dataplane::Options;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_requests_end_and_waits_no_longer() {
    let mut world = World::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let slow = container({
        let (gate, begun) = (gate.clone(), begun.clone());
        move |request: Request<hyper::body::Incoming>| {
            let (gate, begun) = (gate.clone(), begun.clone());
            async move {
                if request.uri().path() == "/slow" {
                    begun.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                reply("done")
            }
        }
    })
    .await;
    world.one(backend("one", &[slow])).await;
    let mut idle = H1::to(world.external).await;
    assert_eq!(idle.get("one.test", "/").await.status, 200);
    let mut h1 = H1::to(world.external).await;
    let over_h1 = tokio::spawn(async move { h1.get("one.test", "/slow").await });
    let mut client = h2(world.external).await;
    let over_h2 = tokio::spawn(async move {
        collect(
            client
                .send_request(Request::get("http://one.test/slow").body(empty()).unwrap())
                .await
                .unwrap(),
        )
        .await
    });
    eventually("both have begun", || begun.load(Ordering::SeqCst) == 2).await;
    let handle = world.handle.clone();
    let began = Instant::now();
    let stopping = tokio::spawn(async move { handle.shutdown(PATIENCE).await });
    let mut refused = false;
    while !refused {
        refused = TcpStream::connect(world.external).await.is_err();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(!stopping.is_finished(), "two requests are in flight");
    gate.add_permits(2);
    let got = within(over_h1).await.unwrap();
    assert_eq!(
        (got.body.as_str(), got.headers["connection"].as_bytes()),
        ("done", &b"close"[..])
    );
    assert_eq!(within(over_h2).await.unwrap().body, "done");
    assert!(
        within(stopping).await.unwrap().is_empty(),
        "everything ended by itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_what_does_not_end() {
    let mut world = World::start().await;
    let stuck = container(|_| std::future::pending());
    world.one(backend("one", &[stuck.await])).await;
    let address = world.external;
    let request = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n",
        )
        .await
        .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(|_| rest)
    });
    eventually("it is in flight", || world.handle.in_flight() == 1).await;
    let cut = world.handle.shutdown(Duration::from_millis(50)).await;
    assert_eq!(cut.requests.values().sum::<u32>(), 1, "{cut:?}");
    let rest = within(request).await.unwrap().unwrap();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.starts_with("HTTP/1.1 503"), "told, not cut: {rest}");
    eventually("nothing is left", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_those_who_wait_for_a_container() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let address = world.external;
    let over_h1 = tokio::spawn(async move { get(address, "one.test", "/").await });
    let mut client = h2(address).await;
    let over_h2 = tokio::spawn(async move {
        let request = Request::get("http://one.test/").body(empty()).unwrap();
        collect(client.send_request(request).await.unwrap()).await
    });
    eventually("both wait", || world.handle.in_flight() == 2).await;
    // Long before the grace has passed.
    assert!(
        within(world.handle.shutdown(10 * PATIENCE))
            .await
            .is_empty()
    );
    for asked in [over_h1, over_h2] {
        let got = within(asked).await.unwrap();
        assert_eq!(got.status, 503, "{}", got.body);
        assert!(got.body.contains("shutting down"), "{}", got.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_serves_those_who_wait_for_a_container_that_runs() {
    let mut world = World::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let slow = container({
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                reply("done")
            }
        }
    });
    let mut one = backend("one", &[slow.await]);
    one.container_concurrency = 1;
    world.one(one).await;
    let address = world.external;
    let asked = [(); 3].map(|()| tokio::spawn(async move { get(address, "one.test", "/").await }));
    eventually("one runs, two wait", || world.handle.in_flight() == 3).await;
    let handle = world.handle.clone();
    let stopping = tokio::spawn(async move { handle.shutdown(10 * PATIENCE).await });
    gate.add_permits(3);
    for asked in asked {
        assert_eq!(within(asked).await.unwrap().status, 200);
    }
    assert!(within(stopping).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_dribbling_clients_are_closed() {
    let mut world = World::with(Options {
        client_idle: Duration::from_millis(60),
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[says("ok").await])).await;
    for beginning in [
        "",
        "P",
        "GET / HTTP/1.1\r\nHost: one.te",
        "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n",
    ] {
        let answer = raw(world.external, beginning).await;
        assert!(
            answer.is_empty() || answer.ends_with("ok") || answer.starts_with("HTTP/1.1 4"),
            "{beginning:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_on_connections_holds_without_refusing_anybody() {
    let mut world = World::with(Options {
        connections_max: 4,
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[says("ok").await])).await;
    let address = world.external;
    let clients = (0..40).map(|_| async move {
        raw(
            address,
            "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n",
        )
        .await
    });
    for answer in futures_util::future::join_all(clients).await {
        assert!(answer.ends_with("ok"), "{answer}");
    }
}
