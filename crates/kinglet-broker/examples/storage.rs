//! What decided on the form of the event log (docs/decisions/0024): ways to sync, one file or several, SQLite.
//!
//! `cargo run --release -p kinglet-broker --example storage [DIR]`; DIR must be on the disk that is meant.

#![expect(clippy::print_stdout, reason = "it reports on standard output")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement by hand: real clocks, and a failure ends it"
)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags};

const EVENT_BYTES: usize = 1_100;
const ROUNDS: usize = 300;
const FILE_BYTES: u64 = 32 << 20;

fn main() {
    let named = std::env::args().nth(1);
    let dir = tempfile::tempdir_in(named.unwrap_or_else(|| ".".to_owned())).unwrap();
    for group in [1, 32, 64] {
        for way in WAYS {
            one_file(dir.path(), way, group);
        }
        sqlite(dir.path(), group);
    }
    for files in [1, 4, 16] {
        several_files(dir.path(), files);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    GrowFsync,
    GrowFdatasync,
    PreallocatedFdatasync,
    WrittenFdatasync,
    WrittenDsync,
}

const WAYS: [(Way, &str); 5] = [
    (Way::GrowFsync, "growing, fsync"),
    (Way::GrowFdatasync, "growing, fdatasync"),
    (Way::PreallocatedFdatasync, "preallocated, fdatasync"),
    (Way::WrittenFdatasync, "written before, fdatasync"),
    (Way::WrittenDsync, "written before, O_DSYNC"),
];

fn make(path: &Path, way: Way) -> File {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    match way {
        Way::GrowFsync | Way::GrowFdatasync => {}
        Way::PreallocatedFdatasync => {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).unwrap();
        }
        Way::WrittenFdatasync | Way::WrittenDsync => {
            let zeros = vec![0; usize::try_from(FILE_BYTES).unwrap()];
            file.write_all_at(&zeros, 0).unwrap();
        }
    }
    file.sync_all().unwrap();
    if way != Way::WrittenDsync {
        return file;
    }
    OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::DSYNC.bits().cast_signed())
        .open(path)
        .unwrap()
}

fn one_file(dir: &Path, (way, name): (Way, &str), group: usize) {
    let file = make(&dir.join("one"), way);
    let bytes = vec![7; EVENT_BYTES * group];
    let mut offset = 0;
    let times = timed(|| {
        file.write_all_at(&bytes, offset).unwrap();
        match way {
            Way::GrowFsync => file.sync_all().unwrap(),
            Way::WrittenDsync => {}
            Way::GrowFdatasync | Way::PreallocatedFdatasync | Way::WrittenFdatasync => {
                file.sync_data().unwrap();
            }
        }
        offset += u64::try_from(bytes.len()).unwrap();
    });
    report(name, group, &times);
}

fn sqlite(dir: &Path, group: usize) {
    let path = dir.join("events.db");
    let _ = std::fs::remove_file(&path);
    let mut database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE event (position INTEGER PRIMARY KEY, body BLOB NOT NULL);")
        .unwrap();
    let body = vec![7_u8; EVENT_BYTES];
    let times = timed(|| {
        let group_of_events = database.transaction().unwrap();
        for _ in 0..group {
            group_of_events
                .prepare_cached("INSERT INTO event (body) VALUES (?)")
                .unwrap()
                .execute([&body])
                .unwrap();
        }
        group_of_events.commit().unwrap();
    });
    report("SQLite, WAL, FULL", group, &times);
}

fn timed(mut work: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn report(name: &str, group: usize, times: &[Duration]) {
    let total: Duration = times.iter().sum();
    let events = u32::try_from(group * times.len()).unwrap();
    println!(
        "{name:<28} groups of {group:>2}: {:>7.0} events/s, p50 {:>5} µs, p99 {:>6} µs",
        f64::from(events) / total.as_secs_f64(),
        times[times.len() / 2].as_micros(),
        times[times.len() * 99 / 100].as_micros()
    );
}

fn several_files(dir: &Path, count: usize) {
    let files: Vec<File> = (0..count)
        .map(|index| {
            make(
                &dir.join(format!("file-{index}")),
                Way::PreallocatedFdatasync,
            )
        })
        .collect();
    let bytes = vec![7; 4096];
    for threads in [1, 4] {
        let began = Instant::now();
        let rounds: u64 = 100;
        for round in 0..rounds {
            std::thread::scope(|scope| {
                for share in files.chunks(count.div_ceil(threads)) {
                    let bytes = &bytes;
                    scope.spawn(move || {
                        for file in share {
                            file.write_all_at(bytes, round * 4096).unwrap();
                            file.sync_data().unwrap();
                        }
                    });
                }
            });
        }
        println!(
            "{count:>2} files, each synced once, by {threads} threads: {:>6} µs",
            began.elapsed().as_micros() / u128::from(rounds)
        );
    }
}
