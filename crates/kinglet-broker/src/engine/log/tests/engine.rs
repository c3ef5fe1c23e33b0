//! Both engines through their trait, and the durable one over restarts, damage, full disks and failed syncs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use kinglet_decide::feed::Key;
use kinglet_process::{Clock, Supervisor, Tasks};

use super::super::super::memory::MemoryEngine;
use super::super::super::{
    AppendError, Attempt, ChannelId, ChannelLog, Cursor, Delivered, EVENT_BYTES_MAX, Engine,
    EngineError, Headers, IN_HAND_MAX, Matcher, Order, Outcome, Position, Query, Retention,
    StoredEvent, Uid,
};
use super::super::disk::{Disk, SystemDisk};
use super::super::index::Segment;
use super::super::simulated::SimulatedDisk;
use super::super::{LogEngine, Options};

/// How long anything here may take, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(name: &str) -> ChannelId {
    ChannelId {
        kind: "DurableChannel".into(),
        key: Key::new("default", name),
        uid: format!("uid-{name}").into(),
    }
}

fn event(number: usize) -> StoredEvent {
    sized(number, 0)
}

fn sized(number: usize, bytes: usize) -> StoredEvent {
    let text = number.to_string();
    let kind: &[u8] = if number.is_multiple_of(2) {
        b"even"
    } else {
        b"odd"
    };
    StoredEvent {
        arrived: Timestamp::from_second(1_800_000_000 + i64::try_from(number).expect("small"))
            .expect("in range"),
        headers: Headers::new([("ce-id", text.as_bytes()), ("ce-type", kind)]),
        body: Bytes::from(format!("{text}{}", " ".repeat(bytes))),
    }
}

fn number(event: &StoredEvent) -> usize {
    let id = event.headers.get("ce-id").expect("an id");
    std::str::from_utf8(id)
        .expect("text")
        .parse()
        .expect("a number")
}

async fn next(cursor: &mut Box<dyn Cursor>) -> Delivered {
    tokio::time::timeout(PATIENCE, cursor.next())
        .await
        .expect("an event in time")
        .expect("an open channel")
}

/// Nothing comes, though everything that was accepted has been lined up: the sentinel's subscription has it.
fn nothing_comes(cursor: &mut Box<dyn Cursor>) -> bool {
    cursor.next().now_or_never().is_none()
}

struct Running {
    tasks: Tasks,
    engine: LogEngine,
}

impl Running {
    fn on(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        let tasks = Tasks::new();
        let options = Options {
            disk,
            ..Options::system(dir, &Clock::system())
        };
        let engine = LogEngine::start(options, &tasks).expect("a folder");
        Self { tasks, engine }
    }

    async fn open(&self, name: &str) -> Arc<dyn ChannelLog> {
        self.engine
            .open(&id(name), Retention::default())
            .await
            .expect("a channel")
    }

    async fn stop(self) {
        assert!(self.tasks.shutdown(PATIENCE).await);
    }
}

fn system(dir: &Path) -> Running {
    Running::on(Arc::new(SystemDisk), dir)
}

/// What both engines promise, one after the other.
async fn both<F: Future<Output = ()>>(check: impl Fn(Arc<dyn ChannelLog>) -> F) {
    let tasks = Tasks::new();
    let memory = MemoryEngine::new(&tasks);
    check(
        memory
            .open(&id("memory"), Retention::default())
            .await
            .expect("a channel"),
    )
    .await;
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    check(running.open("durable").await).await;
    running.stop().await;
    tasks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_subscription_gets_what_comes_after_it_and_nothing_before() {
    both(|log| async move {
        log.append(event(0)).await.expect("accepted");
        let mut cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
        assert_eq!(log.append(event(1)).await, Ok(Position(2)));
        let delivered = next(&mut cursor).await;
        assert_eq!((delivered.position, delivered.attempts), (Position(2), 0));
        assert_eq!(delivered.event, event(1));
        assert!(nothing_comes(&mut cursor));
        let taken = log.subscribe(&"one".into(), Order::Unordered).err();
        assert!(
            matches!(taken, Some(EngineError::Taken { .. })),
            "{taken:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_hundred_are_in_hand_or_one_in_order() {
    both(|log| async move {
        let mut free = log
            .subscribe(&"free".into(), Order::Unordered)
            .expect("new");
        let mut strict = log
            .subscribe(&"strict".into(), Order::Ordered)
            .expect("new");
        for number in 0..150 {
            log.append(event(number)).await.expect("accepted");
        }
        let mut in_hand = Vec::new();
        for _ in 0..IN_HAND_MAX {
            in_hand.push(next(&mut free).await);
        }
        assert!(nothing_comes(&mut free));
        in_hand.swap_remove(7).receipt.finished(Outcome::Delivered);
        assert_eq!(number(&next(&mut free).await.event), IN_HAND_MAX);
        for expected in 0..150 {
            let delivered = next(&mut strict).await;
            assert_eq!(number(&delivered.event), expected);
            assert!(nothing_comes(&mut strict));
            // Given back: the same one comes again, before any other.
            drop(delivered);
            let again = next(&mut strict).await;
            assert_eq!(number(&again.event), expected);
            again.receipt.finished(Outcome::Delivered);
        }
        assert_eq!(strict.backlog(), 0);
    })
    .await;
}

struct Odd;

impl Matcher for Odd {
    fn matching(&self, event: &StoredEvent, matched: &mut dyn FnMut(&Uid)) {
        for uid in ["all", "odd"] {
            if self.matches(&uid.into(), event) {
                matched(&uid.into());
            }
        }
    }

    fn matches(&self, subscription: &Uid, event: &StoredEvent) -> bool {
        &**subscription != "odd" || event.headers.get("ce-type") == Some(b"odd")
    }
}

#[tokio::test]
async fn filters_hold_for_who_is_up_to_date_and_for_who_is_behind() {
    both(|log| async move {
        log.route(Arc::new(Odd));
        let mut all = log.subscribe(&"all".into(), Order::Unordered).expect("new");
        let mut odd = log.subscribe(&"odd".into(), Order::Ordered).expect("new");
        // Far more than are lined up for one that does not take them.
        for number in 0..600 {
            log.append(event(number)).await.expect("accepted");
        }
        for expected in 0..600 {
            let delivered = next(&mut all).await;
            assert_eq!(number(&delivered.event), expected);
            delivered.receipt.finished(Outcome::Delivered);
        }
        for expected in 0..300 {
            let delivered = next(&mut odd).await;
            assert_eq!(number(&delivered.event), 2 * expected + 1);
            delivered.receipt.finished(Outcome::Delivered);
        }
        assert!(nothing_comes(&mut odd));
        log.append(event(601)).await.expect("accepted");
        assert_eq!(number(&next(&mut odd).await.event), 601);
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_the_end_learns_it() {
    both(|log| async move {
        let settled = log.append_and_settle(event(0)).await.expect("accepted");
        assert_eq!(settled.failed, []);
        let mut good = log
            .subscribe(&"good".into(), Order::Unordered)
            .expect("new");
        let mut bad = log.subscribe(&"bad".into(), Order::Unordered).expect("new");
        let _gone = log
            .subscribe(&"gone".into(), Order::Unordered)
            .expect("new");
        let (settled, ()) = tokio::join!(log.append_and_settle(event(1)), async {
            next(&mut good).await.receipt.finished(Outcome::Delivered);
            next(&mut bad).await.receipt.finished(Outcome::GivenUp);
            log.unsubscribe(&"gone".into());
        });
        let failed = settled.expect("accepted").failed;
        assert_eq!(failed, [("bad".into(), Outcome::GivenUp)]);
    })
    .await;
}

#[tokio::test]
async fn a_subscription_that_is_gone_ends_its_cursor() {
    both(|log| async move {
        let mut cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
        let (ended, ()) = tokio::join!(cursor.next(), async { log.unsubscribe(&"one".into()) });
        assert!(matches!(ended, Err(EngineError::NoSubscription { .. })));
        let error = log
            .append(sized(1, EVENT_BYTES_MAX))
            .await
            .expect_err("too large");
        assert!(!error.is_temporary());
    })
    .await;
}

#[tokio::test]
async fn a_full_channel_says_so_and_its_neighbour_goes_on() {
    let small = Retention {
        bytes_max: 1 << 20,
        ..Retention::default()
    };
    let tasks = Tasks::new();
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    let memory = MemoryEngine::new(&tasks);
    let engines: [&dyn Engine; 2] = [&memory, &running.engine];
    for engine in engines {
        let log = engine.open(&id("full"), small).await.expect("a channel");
        let neighbour = engine
            .open(&id("neighbour"), small)
            .await
            .expect("a channel");
        let mut cursor = log
            .subscribe(&"slow".into(), Order::Unordered)
            .expect("new");
        let mut accepted = 0;
        let error = loop {
            match log.append(sized(accepted, 10_000)).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        let AppendError::Full {
            bytes_max, held_by, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((*bytes_max, held_by.as_deref()), (1 << 20, Some("slow")));
        assert!(
            error.to_string().contains("DurableChannel default/full"),
            "{error}"
        );
        assert!(log.status().refused.is_some());
        assert!(accepted > 50, "{accepted}");
        neighbour
            .append(sized(0, 10_000))
            .await
            .expect("room of its own");
        for expected in 0..accepted {
            let delivered = next(&mut cursor).await;
            assert_eq!(number(&delivered.event), expected);
            delivered.receipt.finished(Outcome::Delivered);
        }
        // A full channel looks again for room after a moment.
        let accepted = async {
            while log.append(sized(0, 10_000)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, accepted)
            .await
            .expect("room again");
        assert!(log.status().bytes <= 1 << 20);
    }
    running.stop().await;
    tasks.shutdown(PATIENCE).await;
}

fn attempt(status: u16) -> Attempt {
    Attempt {
        at: Timestamp::from_second(1_800_000_000).expect("in range"),
        status: Some(status),
        latency: Duration::from_micros(1_500),
        answer: Bytes::from_static(b"try later"),
    }
}

#[tokio::test]
async fn events_attempts_and_places_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    let log = running.open("kept").await;
    let mut cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
    for number in 0..10 {
        log.append(event(number)).await.expect("accepted");
    }
    let mut held = None;
    for expected in 0..6 {
        let delivered = next(&mut cursor).await;
        assert_eq!(number(&delivered.event), expected);
        if expected == 2 {
            delivered.receipt.attempted(attempt(503));
            delivered.receipt.attempted(attempt(500));
            held = Some(delivered);
        } else {
            delivered.receipt.finished(Outcome::Delivered);
        }
    }
    drop(cursor);
    running.stop().await;
    drop(held);
    assert!(matches!(
        log.append(event(9)).await,
        Err(AppendError::Closed { .. })
    ));

    let running = system(dir.path());
    assert_eq!(running.engine.stored().await.expect("a list"), [id("kept")]);
    let log = running.open("kept").await;
    let mut cursor = log
        .subscribe(&"one".into(), Order::Unordered)
        .expect("known");
    assert_eq!(cursor.backlog(), 5);
    let again = next(&mut cursor).await;
    assert_eq!((number(&again.event), again.attempts), (2, 2));
    for expected in 6..10 {
        let delivered = next(&mut cursor).await;
        assert_eq!(
            (number(&delivered.event), delivered.attempts),
            (expected, 0)
        );
        delivered.receipt.finished(Outcome::Delivered);
    }
    assert_eq!(log.append(event(10)).await, Ok(Position(11)));
    running.stop().await;
}

#[tokio::test]
async fn the_log_tells_what_became_of_an_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    let log = running.open("traced").await;
    log.route(Arc::new(Odd));
    let mut all = log.subscribe(&"all".into(), Order::Unordered).expect("new");
    let _odd = log.subscribe(&"odd".into(), Order::Unordered).expect("new");
    for number in 0..4 {
        log.append(event(number)).await.expect("accepted");
    }
    for _ in 0..2 {
        let delivered = next(&mut all).await;
        delivered.receipt.attempted(attempt(503));
        let outcome = if number(&delivered.event) == 0 {
            Outcome::GivenUp
        } else {
            Outcome::Delivered
        };
        delivered.receipt.finished(outcome);
    }
    // What was finished is in the log a moment later.
    let trace = |query: Query| {
        let log = &log;
        async move { log.history(query).await.expect("readable").accounts }
    };
    let given_up = || Query {
        outcome: Some(Outcome::GivenUp),
        ..Query::default()
    };
    let told = async {
        while trace(given_up()).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("written");
    let accounts = trace(Query {
        headers: vec![("ce-id".to_owned(), Bytes::from_static(b"0"))],
        all_subscriptions: true,
        ..Query::default()
    })
    .await;
    assert_eq!(accounts.len(), 1);
    let hops: Vec<_> = accounts[0]
        .hops
        .iter()
        .map(|hop| (&*hop.subscription, hop.attempts.clone(), hop.outcome))
        .collect();
    assert_eq!(
        hops,
        [
            ("all", vec![attempt(503)], Some(Outcome::GivenUp)),
            ("odd", Vec::new(), Some(Outcome::Filtered))
        ]
    );
    let page = log
        .history(Query {
            headers: vec![("ce-type".to_owned(), Bytes::from_static(b"odd"))],
            limit: 1,
            ..Query::default()
        })
        .await
        .expect("readable");
    assert_eq!(
        (page.accounts[0].position, page.next),
        (Position(2), Some(Position(4)))
    );
    let since = Query {
        since: Some(event(2).arrived),
        until: Some(event(3).arrived),
        ..Query::default()
    };
    assert_eq!(trace(since).await[0].position, Position(3));

    log.redeliver(&"all".into(), Position(1))
        .await
        .expect("there");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let delivered = next(&mut all).await;
        seen.push(number(&delivered.event));
        delivered.receipt.finished(Outcome::Delivered);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 2, 3]);
    let told = async {
        while !trace(given_up()).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("no longer given up");
    let missing = log.redeliver(&"all".into(), Position(99)).await;
    assert!(
        matches!(missing, Err(EngineError::NoEvent { .. })),
        "{missing:?}"
    );
    log.arrived(Position(4)).await.expect("there");
    running.stop().await;
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir.join("uid-damaged"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            Segment::parse(&path.file_name().expect("a name").to_string_lossy()).is_some()
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn damage_costs_one_record_and_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    let retention = Retention {
        bytes_max: 1 << 20,
        ..Retention::default()
    };
    let open = |running: Running| async move {
        let log = running
            .engine
            .open(&id("damaged"), retention)
            .await
            .expect("a channel");
        (running, log)
    };
    let (running, log) = open(running).await;
    let cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
    for number in 0..45 {
        log.append(sized(number, 10_000)).await.expect("accepted");
    }
    drop(cursor);
    running.stop().await;
    let files = segment_files(dir.path());
    assert!(files.len() > 2, "{files:?}");
    // One in the first segment, one in the last, behind which records were synced.
    for path in [files.first(), files.last()] {
        let path = path.expect("a file");
        let mut bytes = std::fs::read(path).expect("readable");
        bytes[12_000] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    }
    let (running, log) = open(system(dir.path())).await;
    let mut cursor = log
        .subscribe(&"one".into(), Order::Unordered)
        .expect("known");
    assert_eq!(
        log.status().damaged,
        1,
        "the last segment is read at the start"
    );
    let mut seen = Vec::new();
    while seen.last() != Some(&44) {
        let delivered = next(&mut cursor).await;
        seen.push(number(&delivered.event));
        delivered.receipt.finished(Outcome::Delivered);
    }
    assert_eq!(seen.len(), 43, "{seen:?}");
    assert!(seen.is_sorted());
    assert!(log.status().damaged >= 2);
    assert_eq!(log.append(event(45)).await, Ok(Position(46)));
    running.stop().await;
}

#[tokio::test]
async fn a_removed_channel_gives_its_space_back_and_open_files_are_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = system(dir.path());
    let mut logs = Vec::new();
    for number in 0..220 {
        let log = running.open(&format!("channel-{number}")).await;
        log.append(event(number)).await.expect("accepted");
        logs.push(log);
    }
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("procfs")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.starts_with(dir.path()))
        .count();
    assert!(open <= 4 * 33 + 64, "{open} files are open");
    let mut cursor = logs[7]
        .subscribe(&"one".into(), Order::Unordered)
        .expect("new");
    running
        .engine
        .remove(&id("channel-7"))
        .await
        .expect("removed");
    assert!(!dir.path().join("uid-channel-7").exists());
    assert!(matches!(
        cursor.next().await,
        Err(EngineError::Closed { .. })
    ));
    assert!(matches!(
        logs[7].append(event(0)).await,
        Err(AppendError::Closed { .. })
    ));
    assert_eq!(running.engine.stored().await.expect("a list").len(), 219);
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_room_helps() {
    let disk = SimulatedDisk::new(1);
    let running = Running::on(Arc::new(disk.clone()), Path::new("/log"));
    let log = running.open("full").await;
    let mut cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
    log.append(event(0)).await.expect("accepted");
    disk.limit_room(Some(100_000));
    let mut accepted = 1;
    let error = loop {
        match log.append(sized(accepted, 10_000)).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100);
    };
    assert!(matches!(error, AppendError::DiskFull { .. }), "{error}");
    disk.limit_room(None);
    log.append(event(accepted)).await.expect("room again");
    for expected in 0..=accepted {
        let delivered = next(&mut cursor).await;
        assert_eq!(number(&delivered.event), expected);
        delivered.receipt.finished(Outcome::Delivered);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_failed_sync_is_said_and_nothing_of_it_is_trusted() {
    let disk = SimulatedDisk::new(2);
    let running = Running::on(Arc::new(disk.clone()), Path::new("/log"));
    let log = running.open("failing").await;
    log.append(event(0)).await.expect("accepted");
    disk.fail_syncs(1);
    let error = log.append(event(1)).await.expect_err("a failed sync");
    assert!(matches!(error, AppendError::Disk { .. }), "{error}");
    assert_eq!(log.append(event(2)).await, Ok(Position(2)));
    running.stop().await;
    disk.restart();
    let running = Running::on(Arc::new(disk.clone()), Path::new("/log"));
    let log = running.open("failing").await;
    let page = log.history(Query::default()).await.expect("readable");
    let numbers: Vec<_> = page
        .accounts
        .iter()
        .map(|account| number(&account.event))
        .collect();
    assert_eq!(numbers, [0, 2]);
    assert_eq!(log.status().damaged, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_dead_writer_ends_the_process_and_answers_everybody() {
    let supervisor = Supervisor::new();
    let tasks = Tasks::new().supervised_by(&supervisor);
    let options = Options {
        disk: Arc::new(SimulatedDisk::new(3)),
        random: Arc::new(|| panic!("in the middle of a write")),
        ..Options::system(Path::new("/log"), &Clock::system())
    };
    let engine = LogEngine::start(options, &tasks).expect("a folder");
    let log = engine
        .open(&id("dead"), Retention::default())
        .await
        .expect("a channel");
    let mut cursor = log.subscribe(&"one".into(), Order::Unordered).expect("new");
    let error = log.append(event(0)).await.expect_err("no writer");
    assert!(matches!(error, AppendError::Closed { .. }), "{error}");
    tokio::time::timeout(PATIENCE, supervisor.failed())
        .await
        .expect("told");
    assert_eq!(supervisor.fault().expect("a fault").component, "event log");
    let ended = tokio::time::timeout(PATIENCE, cursor.next())
        .await
        .expect("told");
    assert!(matches!(ended, Err(EngineError::Closed { .. })));
    tasks.shutdown(PATIENCE).await;
}
