//! Channels in the log: the answer means synced, and what was not delivered comes after a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use kinglet_events::delivery::BackoffPolicy::Linear;
use kinglet_process::{Clock, Tasks};

use super::world::*;
use crate::engine::log::{LogEngine, Options};
use crate::engine::{Engine, Outcome, Page, Query};
use crate::feed::{Delivery, Update};

const KIND: &str = "DurableChannel";

fn start(
    dir: &Path,
    log_tasks: &Tasks,
    script: impl Fn(&Got, usize) -> Act + Send + Sync + 'static,
) -> World {
    let clock = Clock::system();
    let engine = LogEngine::start(Options::system(dir, &clock), log_tasks).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let setup = Setup {
        engine: Some(engine),
        clock: Some(clock),
        ..Setup::new(true)
    };
    setup.start(script)
}

/// The history of the Broker's channel, once it is as expected.
async fn history(world: &World, expected: impl Fn(&Page) -> bool) -> Page {
    let log = world
        .handle
        .log(&channel_id(KIND, "default-kne-trigger"))
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let query = Query {
            all_subscriptions: true,
            ..Query::default()
        };
        let page = log.history(query).await.unwrap();
        if expected(&page) {
            return page;
        }
        assert!(tokio::time::Instant::now() < deadline, "{page:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is under way at a stop is dropped and delivered after the next start, with the attempts that were made.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_comes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log_tasks = Tasks::new();
    let world = start(dir.path(), &log_tasks, |got, _| match got.url.as_str() {
        "http://good/" => answer(200, &[], ""),
        "http://down/" => answer(503, &[], "down"),
        _ => Act::Hang,
    });
    // Longer than any test: it waits before its first retry.
    let patient = || Delivery {
        dead_letter: None,
        policy: retries(
            5,
            kinglet_events::delivery::BackoffPolicy::Exponential,
            3_600_000,
        ),
    };
    let triggers = || {
        [
            trigger("good", None, "http://good/"),
            trigger("hang", None, "http://hang/"),
            trigger("down", None, "http://down/").with(patient()),
        ]
    };
    world.broker(KIND, &triggers()).await;
    for number in 0..10 {
        // Nobody who hangs holds the answer up.
        assert_eq!(
            world.send(&number.to_string(), "foo").await.0,
            StatusCode::ACCEPTED
        );
    }
    until("the first attempts", || {
        ["good", "hang", "down"]
            .iter()
            .all(|name| world.sinks.at(name).len() == 10)
    })
    .await;
    let began = tokio::time::Instant::now();
    world.handle.drain(Duration::from_millis(200)).await;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(world.tasks.shutdown(Duration::from_secs(20)).await);
    assert!(log_tasks.shutdown(Duration::from_secs(20)).await);
    drop(world);

    let log_tasks = Tasks::new();
    let world = start(dir.path(), &log_tasks, |_, _| answer(200, &[], ""));
    world.broker(KIND, &triggers()).await;
    for name in ["hang", "down"] {
        until(name, || world.sinks.at(name).len() >= 10).await;
        let mut ids: Vec<String> = world
            .sinks
            .at(name)
            .iter()
            .map(|got| got.event().id().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10, "{name}");
    }
    until("the ends", || {
        world
            .handle
            .subscriptions()
            .iter()
            .all(|one| one.backlog == 0)
    })
    .await;
    // What became of events is written a moment later.
    let page = history(&world, |page| {
        let hops = page.accounts.iter().flat_map(|account| &account.hops);
        hops.filter(|hop| hop.outcome == Some(Outcome::Delivered))
            .count()
            == 30
    })
    .await;
    assert_eq!(page.accounts.len(), 10);
    let hops = &page.accounts[0].hops;
    let down = hops
        .iter()
        .find(|hop| &*hop.subscription == "down-subscription")
        .unwrap();
    let statuses: Vec<_> = down.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(503), Some(200)]);
    assert_eq!(
        down.attempts[0].answer, "down",
        "without the filter's envelope"
    );
    assert_eq!(down.outcome, Some(Outcome::Delivered));
    assert!(world.tasks.shutdown(Duration::from_secs(20)).await);
    assert!(log_tasks.shutdown(Duration::from_secs(20)).await);
}

/// The log tells of each hop: verdicts, attempts, replies that failed, dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_where_an_event_went() {
    let dir = tempfile::tempdir().unwrap();
    let log_tasks = Tasks::new();
    let world = start(dir.path(), &log_tasks, |got, _| match got.url.as_str() {
        "http://gone/" => answer(410, &[], "gone for good"),
        _ => answer(200, &[], ""),
    });
    let letters = dead(retries(1, Linear, 1), "http://dead/");
    let no_letters = dead(retries(1, Linear, 1), "http://gone/");
    let triggers = [
        trigger("taken", Some("foo"), "http://sink/"),
        trigger("filtered", Some("bar"), "http://sink/"),
        trigger("dead", None, "http://gone/").with(letters),
        trigger("given-up", None, "http://gone/").with(no_letters),
    ];
    world.broker(KIND, &triggers).await;
    assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
    until("the ends", || {
        world
            .handle
            .subscriptions()
            .iter()
            .all(|one| one.backlog == 0)
    })
    .await;
    let id = channel_id(KIND, "default-kne-trigger");
    let page = history(&world, |page| {
        let hops = page.accounts.iter().flat_map(|account| &account.hops);
        let told = |outcome: Outcome| outcome != Outcome::Filtered;
        hops.filter(|hop| hop.outcome.is_some_and(told)).count() == 3
    })
    .await;
    let outcome = |name: &str| {
        let uid = format!("{name}-subscription");
        let hop = page.accounts[0]
            .hops
            .iter()
            .find(|hop| *hop.subscription == *uid)
            .unwrap();
        let answers: Vec<String> = hop
            .attempts
            .iter()
            .map(|one| String::from_utf8_lossy(&one.answer).into_owned())
            .collect();
        (hop.outcome, answers)
    };
    assert_eq!(
        outcome("taken"),
        (Some(Outcome::Delivered), vec![String::new()])
    );
    assert_eq!(outcome("filtered"), (Some(Outcome::Filtered), vec![]));
    assert_eq!(
        outcome("dead"),
        (
            Some(Outcome::DeadLettered),
            vec!["gone for good".to_owned()]
        )
    );
    let (given_up, answers) = outcome("given-up");
    assert_eq!(given_up, Some(Outcome::GivenUp));
    assert_eq!(
        answers,
        [
            "gone for good",
            "dead letter to http://gone/: gone for good"
        ]
    );
    // A channel that no object names any more is known as such, and its removal takes it away.
    assert!(world.handle.unknown_channels().await.unwrap().is_empty());
    world.apply(Update::Channel(id, None)).await;
    assert!(world.handle.unknown_channels().await.unwrap().is_empty());
    assert!(world.tasks.shutdown(Duration::from_secs(20)).await);
    assert!(log_tasks.shutdown(Duration::from_secs(20)).await);
}

/// A subscriber's new address is used by the attempts from then on, also for events that wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_subscriber_gets_what_waited() {
    let dir = tempfile::tempdir().unwrap();
    let log_tasks = Tasks::new();
    let world = start(dir.path(), &log_tasks, |got, _| {
        answer(if got.url == "http://wrong/" { 404 } else { 200 }, &[], "")
    });
    let forever = Delivery {
        dead_letter: None,
        policy: retries(1_000_000, Linear, 0),
    };
    world
        .broker(
            KIND,
            &[trigger("t", None, "http://wrong/").with(forever.clone())],
        )
        .await;
    assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
    until("an attempt", || !world.sinks.at("wrong").is_empty()).await;
    world
        .broker(KIND, &[trigger("t", None, "http://right/").with(forever)])
        .await;
    until("the right one", || !world.sinks.at("right").is_empty()).await;
    until("the end", || {
        world
            .handle
            .subscriptions()
            .iter()
            .all(|one| one.backlog == 0)
    })
    .await;
    assert!(world.tasks.shutdown(Duration::from_secs(20)).await);
    assert!(log_tasks.shutdown(Duration::from_secs(20)).await);
}

/// Stops in the middle, again and again: nothing is lost, and who asked for order gets each event first after the one
/// before it.
#[tokio::test(flavor = "multi_thread")]
async fn stops_lose_nothing_and_keep_the_order() {
    const EVENTS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let id = channel_id(KIND, "c");
    let mut first_times: Vec<usize> = Vec::new();
    let mut unordered: Vec<usize> = Vec::new();
    for round in 0..4 {
        let log_tasks = Tasks::new();
        let world = start(dir.path(), &log_tasks, |got, time| {
            let number: usize = got.header("ce-id").unwrap().parse().unwrap();
            let status = if time == 1 && number.is_multiple_of(7) {
                503
            } else {
                200
            };
            Act::After(Duration::from_millis(2), Box::new(answer(status, &[], "")))
        });
        let policy = Delivery {
            dead_letter: None,
            policy: retries(20, Linear, 1),
        };
        let mut subscribers = vec![
            subscriber("ordered", Some("http://ordered/")),
            subscriber("unordered", Some("http://unordered/")),
        ];
        subscribers[0].ordered = true;
        for one in &mut subscribers {
            one.delivery = policy.clone();
        }
        let route = channel_of(subscribers);
        world.apply(Update::Channel(id.clone(), Some(route))).await;
        if round < 3 {
            for number in round * EVENTS / 3..(round + 1) * EVENTS / 3 {
                let id = number.to_string();
                let (status, why) = world.send_to_channel(KIND, "c", &id).await;
                assert_eq!(status, StatusCode::ACCEPTED, "{why}");
            }
        } else {
            let done = || {
                world
                    .handle
                    .subscriptions()
                    .iter()
                    .all(|one| one.backlog == 0)
            };
            until("the rest", done).await;
        }
        world.handle.drain(Duration::ZERO).await;
        let numbers = |part: &str| -> Vec<usize> {
            let got = world.sinks.at(part);
            got.iter()
                .map(|one| one.header("ce-id").unwrap().parse().unwrap())
                .collect()
        };
        for number in numbers("http://ordered/") {
            if !first_times.contains(&number) {
                first_times.push(number);
            }
        }
        unordered.extend(numbers("http://unordered/"));
        assert!(world.tasks.shutdown(Duration::from_secs(20)).await);
        assert!(log_tasks.shutdown(Duration::from_secs(20)).await);
    }
    assert_eq!(first_times, (0..EVENTS).collect::<Vec<_>>());
    unordered.sort_unstable();
    unordered.dedup();
    assert_eq!(unordered, (0..EVENTS).collect::<Vec<_>>());
}
