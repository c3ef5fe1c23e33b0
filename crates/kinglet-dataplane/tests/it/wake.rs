//! From zero: wait, poke, slot.

use std::time::Duration;

use kinglet_dataplane::Options;
use kinglet_decide::feed::{Key, Report, Update};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_one_pokes_all_are_served() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let address = world.external;
            tokio::spawn(async move { get(address, "one.test", "/").await })
        })
        .collect();
    eventually("all wait", || world.handle.in_flight() == 20).await;
    assert_eq!(world.next_poke().await, Key::new("ns", "one"));
    assert!(world.reports.try_recv().is_err(), "one poke is enough");
    world.revision(backend("one", &[says("awake").await])).await;
    for request in waiting {
        let got = within(request).await.unwrap();
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "awake"));
    }
    let starts = world.handle.cold_starts();
    assert_eq!(starts.len(), 20);
    assert!(starts[0].wait > Duration::ZERO && starts[0].revision == Key::new("ns", "one"));
    assert_eq!(world.handle.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pokes_again_while_nothing_comes_and_anew_after_sleep() {
    let options = Options {
        poke_again: Duration::from_millis(50),
        report_every: Duration::from_millis(20),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    world.one(backend("one", &[])).await;
    let address = world.external;
    let first = tokio::spawn(async move { get(address, "one.test", "/").await });
    world.next_poke().await;
    world.next_poke().await;
    world.revision(backend("one", &[says("awake").await])).await;
    assert_eq!(within(first).await.unwrap().status, 200);
    world.revision(backend("one", &[])).await;
    world.settle().await;
    while world.reports.try_recv().is_ok() {}
    let second = tokio::spawn(async move { get(address, "one.test", "/").await });
    world.next_poke().await;
    second.abort();
    eventually("nobody waits", || world.handle.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_while_there_is_traffic_and_end_with_zero() {
    let options = Options {
        report_every: Duration::from_millis(30),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let slow = container(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        reply("slow")
    });
    world.one(backend("one", &[slow.await])).await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 200);
    let (mut busy, mut arrivals) = (false, false);
    loop {
        let Report::Stat { revision, stat, .. } = within(world.reports.recv()).await.unwrap()
        else {
            panic!("nothing needs waking")
        };
        assert_eq!(revision, Key::new("ns", "one"));
        busy |= stat.average_concurrent_requests > 0.9 && stat.in_flight == Some(1);
        arrivals |= stat.request_count > 0.0;
        if stat.in_flight == Some(0) && stat.average_concurrent_requests == 0.0 {
            break;
        }
    }
    assert!(busy && arrivals);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.reports.try_recv().is_err(), "silence after the zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_channel_delays_pokes_but_loses_none() {
    let options = Options {
        report_every: Duration::from_millis(10),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let names: Vec<String> = (0..100).map(|number| format!("rev-{number}")).collect();
    let mut rules = Vec::new();
    for name in &names {
        world.revision(backend(name, &[])).await;
        rules.push(rule(&format!("{name}.test"), vec![to(&[(100, name)])]));
    }
    world.route(rules).await;
    let requests: Vec<_> = names
        .iter()
        .map(|name| {
            let (address, host) = (world.external, format!("{name}.test"));
            tokio::spawn(async move { get(address, &host, "/").await })
        })
        .collect();
    eventually("all wait", || world.handle.in_flight() == names.len()).await;
    let mut poked = std::collections::HashSet::new();
    while poked.len() < names.len() {
        poked.insert(world.next_poke().await);
    }
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_nobody_describes_is_not_found() {
    let options = Options {
        unknown_backend_wait: Duration::from_millis(50),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    world
        .route(vec![rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    let got = get(world.external, "one.test", "/").await;
    assert_eq!(got.status, 404);
    assert_eq!(
        got.body.trim(),
        "Error getting active endpoint: revision.serving.knative.dev \"one\" not found"
    );
    // Known a moment later: those who wait are served, whatever it turns out to be.
    world.revision(backend("one", &[says("one").await])).await;
    world.settle().await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 200);
    world
        .updates
        .send(Update::Revision(Key::new("ns", "one"), None))
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(get(world.external, "one.test", "/").await.status, 404);
}

/// A control plane that starts tells routes first and backends behind: who asks meanwhile waits, and is told the truth in the
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn while_backends_are_still_told_requests_for_them_wait() {
    let wait = Duration::from_millis(50);
    let options = Options {
        unknown_backend_wait: wait,
        ..Options::default()
    };
    let mut world = World::with(options).await;
    world.handle.set_backends_told(false);
    let rules = ["one", "none"].map(|name| {
        let host = format!("{name}.test");
        rule(&host, vec![to(&[(100, name)])])
    });
    world.route(rules.into()).await;
    let asked = ["one.test", "none.test"].map(|host| {
        let address = world.external;
        tokio::spawn(async move { get(address, host, "/").await })
    });
    eventually("both wait", || world.handle.in_flight() == 2).await;
    tokio::time::sleep(wait * 4).await;
    // Without a pod, so that it still waits when all is told.
    world.revision(backend("one", &[])).await;
    world.settle().await;
    assert!(asked.iter().all(|request| !request.is_finished()));
    world.handle.set_backends_told(true);
    let [one, none] = asked;
    assert_eq!(none.await.unwrap().status, 404);
    tokio::time::sleep(wait * 4).await;
    assert!(!one.is_finished(), "it is known now, and may take its time");
    world.revision(backend("one", &[says("one").await])).await;
    assert_eq!(one.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_tells_where_its_time_went() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let answer = raw(
        world.external,
        "GET / HTTP/1.1\r\nHost: one.test\r\nK-Kinglet-Trace: 1\r\nConnection: close\r\n\r\n",
    )
    .await;
    let timing = answer
        .lines()
        .find(|line| line.starts_with("server-timing:"))
        .expect("traced");
    for station in ["route;dur=", "wait;dur=", "connect;dur=", "first-byte;dur="] {
        assert!(timing.contains(station), "{timing}");
    }
    assert!(
        !answer.contains("k-kinglet-trace"),
        "not the container's business"
    );
}
