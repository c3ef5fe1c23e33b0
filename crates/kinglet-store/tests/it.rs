//! The store from outside: against a model, over crashes, with a full disk.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic; helpers of tests are not seen as tests"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use kinglet_store::{Change, Durability, Event, Expect, OpenError, Options, Store, WriteError};
use proptest::prelude::*;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "kinglet-store-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stamped(text: &str) -> impl FnOnce(u64) -> Bytes {
    let text = text.to_owned();
    move |revision| Bytes::from(format!("{text}@{revision}"))
}

fn contents(store: &Store) -> BTreeMap<String, Bytes> {
    let page = store.list("", None, 0, None).unwrap();
    page.entries
        .into_iter()
        .map(|(key, entry)| (key.to_string(), entry.value))
        .collect()
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn put(store: &Store, key: &str, value: &str, durability: Durability) -> u64 {
    run(store
        .put(key, Expect::Any, durability, stamped(value))
        .unwrap()
        .settled())
    .unwrap()
    .0
}

#[test]
fn what_was_synced_is_there_after_a_crash_and_revisions_go_on() {
    let folder = Folder::new();
    let store = Store::open(&folder.0, Options::default()).unwrap();
    let first = put(&store, "a", "1", Durability::Synced);
    let second = put(&store, "b", "2", Durability::Synced);
    assert!(second > first);
    store.crash();
    let store = Store::open(&folder.0, Options::default()).unwrap();
    assert_eq!(store.get("a").unwrap().value, format!("1@{first}"));
    assert_eq!(store.get("b").unwrap().modified, second);
    assert!(store.revision() > second);
    assert!(
        store.watch("", second).is_err(),
        "a revision of another life is too old"
    );
    let third = put(&store, "c", "3", Durability::Synced);
    assert!(third > second);
}

#[test]
fn memory_writes_stay_in_memory_unless_the_key_is_on_disk() {
    let folder = Folder::new();
    let store = Store::open(&folder.0, Options::default()).unwrap();
    put(&store, "event", "1", Durability::Memory);
    put(&store, "lease", "1", Durability::Synced);
    put(&store, "lease", "2", Durability::Memory);
    store.close();
    drop(store);
    let store = Store::open(&folder.0, Options::default()).unwrap();
    assert!(store.get("event").is_none());
    assert!(store.get("lease").unwrap().value.starts_with(b"2@"));
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let folder = Folder::new();
    let _store = Store::open(&folder.0, Options::default()).unwrap();
    let error = Store::open(&folder.0, Options::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn links_in_the_data_directory_are_not_followed() {
    for name in ["lock", "state.db"] {
        let dir = Folder::new();
        let outside = dir.0.join("outside");
        std::fs::write(&outside, "precious").unwrap();
        let inside = dir.0.join("store");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join(name)).unwrap();
        let error = Store::open(&inside, Options::default()).unwrap_err();
        assert!(error.to_string().contains("opening"), "{name}: {error}");
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious", "{name}");
    }
}

#[test]
fn a_damaged_database_is_named() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("state.db"), vec![7u8; 8192]).unwrap();
    let error = Store::open(&folder.0, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[test]
fn a_full_disk_refuses_and_leaves_nothing_half_done() {
    let folder = Folder::new();
    let options = Options {
        disk_bytes_max: Some(256 << 10),
        ..Options::default()
    };
    let store = Store::open(&folder.0, options.clone()).unwrap();
    put(&store, "small", "1", Durability::Synced);
    let mut watch = store.watch("", store.revision()).unwrap();
    let big = "x".repeat(1 << 20);
    let refused = run(store
        .put("big", Expect::Absent, Durability::Synced, stamped(&big))
        .unwrap()
        .settled());
    assert!(
        matches!(refused, Err(WriteError::Refused { .. })),
        "{refused:?}"
    );
    assert!(store.get("big").is_none());
    let refused = run(async {
        match store.put("small", Expect::Any, Durability::Synced, stamped(&big)) {
            Ok(write) => write.settled().await.map(drop),
            Err(error) => Err(error),
        }
    });
    assert!(matches!(refused, Err(WriteError::Refused { .. })));
    assert!(store.get("small").unwrap().value.starts_with(b"1@"));
    // Watchers saw it come and go, in order.
    let events = watch.ready().unwrap();
    assert!(
        events
            .windows(2)
            .all(|pair| pair[0].revision < pair[1].revision)
    );
    let last = events.iter().rfind(|event| &*event.key == "big").unwrap();
    assert!(matches!(last.change, Change::Delete(_)));
    // Room again: it goes on by itself.
    run(async {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while store.broken().is_some() {
            assert!(tokio::time::Instant::now() < deadline, "the store recovers");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    put(&store, "after", "2", Durability::Synced);
    let before = contents(&store);
    store.crash();
    let store = Store::open(&folder.0, options).unwrap();
    assert_eq!(
        contents(&store).keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
}

#[test]
fn pages_show_one_moment() {
    let store = Store::in_memory(Options {
        history_events_max: 100,
        ..Options::default()
    });
    for n in 0..30 {
        put(&store, &format!("p/{n:02}"), "old", Durability::Memory);
    }
    let first = store.list("p/", None, 10, None).unwrap();
    assert_eq!((first.entries.len(), first.remaining), (10, 20));
    put(&store, "p/15", "new", Durability::Memory);
    put(&store, "p/99", "new", Durability::Memory);
    run(store
        .delete("p/20", Expect::Any, Durability::Memory, stamped("gone"))
        .unwrap()
        .settled())
    .unwrap();
    let rest = store
        .list("p/", Some("p/09"), 0, Some(first.revision))
        .unwrap();
    assert_eq!(rest.entries.len(), 20);
    assert!(
        rest.entries
            .iter()
            .all(|(_, entry)| entry.value.starts_with(b"old@"))
    );
    store.compact(store.revision());
    assert!(
        store
            .list("p/", Some("p/09"), 10, Some(first.revision))
            .is_err()
    );
}

#[test]
fn a_slow_watcher_is_told() {
    let store = Store::in_memory(Options {
        history_events_max: 10,
        ..Options::default()
    });
    let mut slow = store.watch("", store.revision()).unwrap();
    for n in 0..20 {
        put(&store, "k", &n.to_string(), Durability::Memory);
    }
    assert!(slow.ready().is_err());
}

#[test]
fn a_watcher_of_a_quiet_prefix_misses_nothing_of_a_busy_one() {
    let store = Store::in_memory(Options {
        history_events_max: 10,
        ..Options::default()
    });
    let mut quiet = store.watch("quiet/", store.revision()).unwrap();
    let busy = || {
        for n in 0..20 {
            put(&store, "busy/k", &n.to_string(), Durability::Memory);
        }
    };
    busy();
    put(&store, "quiet/k", "1", Durability::Memory);
    let seen: Vec<Event> = quiet.ready().unwrap();
    assert_eq!(
        seen.iter().map(|event| &*event.key).collect::<Vec<_>>(),
        ["quiet/k"]
    );
    busy();
    assert_eq!(quiet.ready().unwrap(), []);
    assert_eq!(quiet.position(), store.revision());
    // What it has not read is gone now, and it is told each time.
    put(&store, "quiet/k", "2", Durability::Memory);
    busy();
    assert!(quiet.ready().is_err());
    assert!(quiet.ready().is_err());
}

#[test]
fn a_watcher_that_reads_in_parts_is_told_what_it_lost() {
    let store = Store::in_memory(Options {
        history_events_max: 1000,
        ..Options::default()
    });
    let mut slow = store.watch("slow/", store.revision()).unwrap();
    let put_all = |key: &str| {
        for n in 0..900 {
            put(&store, key, &n.to_string(), Durability::Memory);
        }
    };
    put_all("slow/k");
    let part = slow.ready().unwrap();
    assert!(part.len() < 900);
    put_all("busy/k");
    assert!(slow.ready().is_err());
}

#[test]
fn a_quiet_time_needs_less_history() {
    let store = Store::in_memory(Options::default());
    let large = "x".repeat(1 << 16);
    let from = store.revision();
    let mut late = store.watch("", from).unwrap();
    for _ in 0..40 {
        put(&store, "k", &large, Durability::Memory);
    }
    let first = store.revision();
    // Nothing is as old as that.
    assert_eq!(store.rest(from), 0);
    assert!(store.watch("", from).is_ok());
    put(&store, "k", "small", Durability::Memory);
    assert!(store.rest(first) > 1 << 20);
    assert!(late.ready().is_err());
    assert!(store.watch("", from).is_err());
    // The newest stay.
    assert!(store.watch("", first - 10).is_ok());
    assert_eq!(store.rest(store.revision()), 0);
}

#[test]
fn expectations_are_kept() {
    let store = Store::in_memory(Options::default());
    let made = put(&store, "k", "1", Durability::Memory);
    let absent = store
        .put("k", Expect::Absent, Durability::Memory, stamped("2"))
        .map(drop);
    assert!(matches!(
        absent,
        Err(WriteError::Conflict { current: Some(_) })
    ));
    let stale = store
        .put(
            "k",
            Expect::Revision(made - 1),
            Durability::Memory,
            stamped("2"),
        )
        .map(drop);
    assert!(matches!(stale, Err(WriteError::Conflict { .. })));
    let gone = store
        .delete("none", Expect::Revision(1), Durability::Memory, stamped(""))
        .map(drop);
    assert!(matches!(gone, Err(WriteError::Conflict { current: None })));
    store
        .put(
            "k",
            Expect::Revision(made),
            Durability::Memory,
            stamped("2"),
        )
        .map(drop)
        .unwrap();
    assert_eq!(store.get("k").unwrap().created, made);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Durability),
    Delete(u8, Durability),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let durability = prop_oneof![
        Just(Durability::Trailing),
        Just(Durability::Synced),
        Just(Durability::Trailing)
    ];
    let step = prop_oneof![
        4 => (0u8..6, durability.clone()).prop_map(|(key, durability)| Step::Put(key, durability)),
        2 => (0u8..6, durability).prop_map(|(key, durability)| Step::Delete(key, durability)),
        1 => Just(Step::Flush),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens before a crash, what is found after it is what was there at some moment not before the last answered sync; and a
    /// watcher saw exactly the changes that were made.
    #[test]
    fn a_crash_leaves_a_prefix(steps in steps()) {
        let folder = Folder::new();
        let store = Store::open(&folder.0, Options::default()).unwrap();
        let mut watch = store.watch("", store.revision()).unwrap();
        let mut model: BTreeMap<String, Bytes> = BTreeMap::new();
        let mut moments = vec![model.clone()];
        let mut safe = 0;
        for step in &steps {
            match step {
                Step::Put(key, durability) => {
                    let key = format!("k/{key}");
                    let (revision, value) = run(store.put(&key, Expect::Any, *durability, stamped("v")).unwrap().settled()).unwrap();
                    prop_assert_eq!(&value, &format!("v@{revision}"));
                    model.insert(key, value);
                    moments.push(model.clone());
                    if *durability == Durability::Synced { safe = moments.len() - 1 }
                }
                Step::Delete(key, durability) => {
                    let key = format!("k/{key}");
                    if model.remove(&key).is_none() { continue }
                    run(store.delete(&key, Expect::Any, *durability, stamped("v")).unwrap().settled()).unwrap();
                    moments.push(model.clone());
                    if *durability == Durability::Synced { safe = moments.len() - 1 }
                }
                Step::Flush => {
                    run(store.flush()).unwrap();
                    safe = moments.len() - 1;
                }
            }
            prop_assert_eq!(contents(&store), model.clone());
        }
        let mut replayed = BTreeMap::new();
        for event in watch.ready().unwrap() {
            match event.change {
                Change::Put(value) => { replayed.insert(event.key.to_string(), value); }
                Change::Delete(_) => { replayed.remove(&*event.key); }
            }
        }
        prop_assert_eq!(replayed, model);
        store.crash();
        let found = contents(&Store::open(&folder.0, Options::default()).unwrap());
        prop_assert!(moments[safe..].contains(&found), "found {:?}, not one of {:?}", found, &moments[safe..]);
    }
}
