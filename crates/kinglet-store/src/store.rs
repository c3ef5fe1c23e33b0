//! The store itself: memory, history, and the order in which both change.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::disk::Disk;
use crate::error::{OpenError, TooOld, WriteError};
use crate::history::History;
use crate::lock;
use crate::watch::{Change, Event, Watch, Watcher};
use crate::writer::{self, Op, Queue};

/// How long a write may live without the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Answered when it is on stable storage.
    Synced,
    /// Visible at once, written behind in the same order.
    Trailing,
    /// Need not reach the disk. A key that is there already is kept in step as if [`Durability::Trailing`].
    Memory,
}

/// What the caller believes about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It exists and was last changed at this revision.
    Revision(u64),
    /// Anything.
    Any,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Bytes,
    /// The revision that made the key.
    pub created: u64,
    /// The revision that changed it last.
    pub modified: u64,
    pub(crate) on_disk: bool,
}

/// Part of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    /// Keys in order.
    pub entries: Vec<(Arc<str>, Entry)>,
    /// The revision the listing shows.
    pub revision: u64,
    /// How many more there are behind this page.
    pub remaining: usize,
}

/// Limits, each with where it comes from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Changes kept for watchers and paging. 16,384: a burst of 1,000 Services with their chains.
    pub history_events_max: usize,
    /// Bytes kept for the same. 16 MiB: a quarter of the idle memory budget at the very worst.
    pub history_bytes_max: usize,
    /// Bytes that may wait for the disk before writes are refused. 64 MiB: twenty of the largest objects.
    pub backlog_bytes_max: usize,
    /// Revisions reserved on disk at once.
    pub revision_block: u64,
    /// Largest database file, if there is to be a limit below the disk's own.
    pub disk_bytes_max: Option<u64>,
    /// Puts a revision into a value, for the rare restore after a refused write.
    pub restamp: fn(&Bytes, u64) -> Bytes,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events_max: 16_384,
            history_bytes_max: 16 << 20,
            backlog_bytes_max: 64 << 20,
            revision_block: 1 << 20,
            disk_bytes_max: None,
            restamp: |value, _| value.clone(),
        }
    }
}

/// A handle on the key space; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    closer: Arc<Closer>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: RwLock<State>,
    pub(crate) watchers: RwLock<Vec<Watcher>>,
    pub(crate) queue: Queue,
    pub(crate) options: Options,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) map: BTreeMap<Arc<str>, Entry>,
    pub(crate) history: History,
    pub(crate) revision: u64,
    /// Revisions up to this one are reserved on disk (or will be lost with everything else, in memory).
    pub(crate) ceiling: u64,
    /// Set while the disk refuses writes.
    pub(crate) broken: Option<String>,
    /// Has a disk at all.
    pub(crate) persistent: bool,
}

/// Ends the writer thread with the last handle.
#[derive(Debug)]
struct Closer {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        close(&self.inner, &self.thread);
    }
}

fn close(inner: &Inner, thread: &Mutex<Option<JoinHandle<()>>>) {
    inner.queue.close();
    if let Some(thread) = thread.lock().take()
        && thread.thread().id() != std::thread::current().id()
        && thread.join().is_err()
    {
        tracing::error!("the store's writer thread panicked");
    }
}

/// A write that is in memory; [`Write::settled`] waits until it is as durable as asked.
#[must_use = "a synced write is only durable once settled"]
#[derive(Debug)]
pub struct Write {
    /// Its revision.
    pub revision: u64,
    /// The value as stored (for a delete: the last form).
    pub value: Bytes,
    settled: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Write {
    /// Waits for the promised durability. Dropping the future does not undo the write.
    pub async fn settled(self) -> Result<(u64, Bytes), WriteError> {
        if let Some(settled) = self.settled {
            match settled.await {
                Ok(Ok(())) => {}
                Ok(Err(detail)) => return Err(WriteError::Refused { detail }),
                Err(_) => return Err(WriteError::Closed),
            }
        }
        Ok((self.revision, self.value))
    }
}

impl Store {
    /// Opens the data directory, which is made if missing and locked while this lives.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let held = lock::take(dir)?;
        let (mut disk, rows, ceiling) = Disk::open(dir, options.disk_bytes_max)?;
        let newest = rows.iter().map(|row| row.modified).max().unwrap_or(0);
        // Never below anything ever handed out: the ceiling is written ahead of use.
        let revision = ceiling.max(newest).max(1);
        let reserved = revision + options.revision_block;
        disk.commit(std::iter::empty(), reserved, true)
            .map_err(|error| OpenError::Engine {
                file: dir.join("state.db"),
                detail: error.to_string(),
            })?;
        let map = rows
            .into_iter()
            .map(|row| {
                let entry = Entry {
                    value: row.value,
                    created: row.created,
                    modified: row.modified,
                    on_disk: true,
                };
                (Arc::from(row.key), entry)
            })
            .collect();
        let inner = Self::inner(map, revision, reserved, true, options);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let inner = Arc::clone(&inner);
                move || writer::run(&inner, disk, held)
            })
            .map_err(|source| OpenError::Io {
                path: dir.to_owned(),
                source,
            })?;
        Ok(Self {
            closer: Arc::new(Closer {
                inner: Arc::clone(&inner),
                thread: Mutex::new(Some(thread)),
            }),
            inner,
        })
    }

    /// A store without a disk: every write is as if [`Durability::Memory`].
    pub fn in_memory(options: Options) -> Self {
        let inner = Self::inner(BTreeMap::new(), 1, u64::MAX, false, options);
        Self {
            closer: Arc::new(Closer {
                inner: Arc::clone(&inner),
                thread: Mutex::new(None),
            }),
            inner,
        }
    }

    fn inner(
        map: BTreeMap<Arc<str>, Entry>,
        revision: u64,
        ceiling: u64,
        persistent: bool,
        options: Options,
    ) -> Arc<Inner> {
        let history = History::new(
            revision,
            options.history_events_max,
            options.history_bytes_max,
        );
        Arc::new(Inner {
            state: RwLock::new(State {
                map,
                history,
                revision,
                ceiling,
                broken: None,
                persistent,
            }),
            watchers: RwLock::new(Vec::new()),
            queue: Queue::default(),
            options,
        })
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.inner.state.read().revision
    }

    /// Why the disk refuses writes at the moment, if it does.
    pub fn broken(&self) -> Option<String> {
        self.inner.state.read().broken.clone()
    }

    /// What the key holds.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.inner.state.read().map.get(key).cloned()
    }

    /// How many keys lie under the prefix.
    pub fn count(&self, prefix: &str) -> usize {
        self.inner.state.read().under(prefix, None).count()
    }

    /// The keys under `prefix`, from the first one *after* `after`, at most `limit` (0 is all), as of revision `at` (none is now).
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<Page, TooOld> {
        let state = self.inner.state.read();
        let Some(at) = at.filter(|at| *at != state.revision) else {
            return Ok(take(
                state
                    .under(prefix, after)
                    .map(|(k, e)| (Arc::clone(k), e.clone())),
                limit,
                state.revision,
            ));
        };
        if at > state.revision {
            return Err(TooOld {
                asked: at,
                oldest: state.revision,
            });
        }
        state.history.covers(at)?;
        let undone = state.history.undo(prefix, at);
        let mut then: BTreeMap<Arc<str>, Entry> = state
            .under(prefix, after)
            .filter(|(key, _)| !undone.contains_key(*key))
            .map(|(key, entry)| (Arc::clone(key), entry.clone()))
            .collect();
        then.extend(
            undone
                .into_iter()
                .filter(|(key, _)| after.is_none_or(|after| &**key > after))
                .filter_map(|(k, e)| Some((k, e?))),
        );
        Ok(take(then.into_iter(), limit, at))
    }

    /// Follows the changes under `prefix` after revision `from`.
    pub fn watch(&self, prefix: &str, from: u64) -> Result<Watch, TooOld> {
        let prefix: Arc<str> = Arc::from(prefix);
        let signal = Arc::new(Notify::new());
        let state = self.inner.state.read();
        state.history.covers(from)?;
        self.inner.watchers.write().push(Watcher {
            prefix: Arc::clone(&prefix),
            signal: Arc::clone(&signal),
        });
        Ok(Watch {
            inner: Arc::clone(&self.inner),
            prefix,
            position: from,
            signal,
        })
    }

    /// Stores what `value` makes of the assigned revision, if the key is as expected.
    pub fn put(
        &self,
        key: &str,
        expect: Expect,
        durability: Durability,
        value: impl FnOnce(u64) -> Bytes,
    ) -> Result<Write, WriteError> {
        self.write(key, expect, durability, |revision| {
            Change::Put(value(revision))
        })
    }

    /// Removes the key, if it is as expected; `last` makes the last form that watchers see.
    pub fn delete(
        &self,
        key: &str,
        expect: Expect,
        durability: Durability,
        last: impl FnOnce(u64) -> Bytes,
    ) -> Result<Write, WriteError> {
        self.write(key, expect, durability, |revision| {
            Change::Delete(last(revision))
        })
    }

    fn write(
        &self,
        key: &str,
        expect: Expect,
        durability: Durability,
        change: impl FnOnce(u64) -> Change,
    ) -> Result<Write, WriteError> {
        let mut state = self.inner.state.write();
        let before = state.map.get(key).cloned();
        let met = match (expect, &before) {
            (Expect::Absent, None) | (Expect::Any, _) => true,
            (Expect::Revision(revision), Some(entry)) => entry.modified == revision,
            (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
        };
        if !met {
            return Err(WriteError::Conflict { current: before });
        }
        let to_disk = state.persistent
            && (durability != Durability::Memory || before.as_ref().is_some_and(|e| e.on_disk));
        let synced = to_disk && durability == Durability::Synced;
        if synced && let Some(detail) = &state.broken {
            return Err(WriteError::Refused {
                detail: detail.clone(),
            });
        }
        if state.revision + 1 >= state.ceiling {
            return Err(WriteError::Refused {
                detail: state
                    .broken
                    .clone()
                    .unwrap_or_else(|| "no revision is reserved on disk".to_owned()),
            });
        }
        if to_disk {
            self.inner
                .queue
                .admit(self.inner.options.backlog_bytes_max)?;
        }
        let key: Arc<str> = match state.map.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let (revision, value) = apply(&mut state, &key, before.clone(), to_disk, change);
        let mut settled = None;
        if to_disk {
            let reply = synced.then(|| {
                let (reply, receiver) = oneshot::channel();
                settled = Some(receiver);
                reply
            });
            let line = state.map.get(&key).cloned();
            // Inside the lock, so that the queue has the order of the history.
            self.inner.queue.push(Op {
                key: Arc::clone(&key),
                line,
                before,
                reply,
            });
        } else if state.persistent
            && revision + self.inner.options.revision_block / 2 > state.ceiling
        {
            self.inner.queue.nudge();
        }
        drop(state);
        wake(&self.inner, &key);
        Ok(Write {
            revision,
            value,
            settled,
        })
    }

    /// Forgets history up to and including `revision`; slower watchers get [`TooOld`].
    pub fn compact(&self, revision: u64) {
        self.inner.state.write().history.compact(revision);
    }

    /// Waits until everything written so far is on stable storage.
    pub async fn flush(&self) -> Result<(), WriteError> {
        if !self.inner.state.read().persistent {
            return Ok(());
        }
        match self.inner.queue.barrier().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(detail)) => Err(WriteError::Refused { detail }),
            Err(_) => Err(WriteError::Closed),
        }
    }

    /// Flushes and ends; later writes to disk are refused. Also happens when the last handle is dropped.
    pub fn close(&self) {
        close(&self.inner, &self.closer.thread);
    }

    /// Ends as a crash would: what waits for the disk is lost. For tests.
    #[doc(hidden)]
    pub fn crash(self) {
        self.inner.queue.abandon();
    }
}

impl State {
    fn under<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.map
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn take(mut entries: impl Iterator<Item = (Arc<str>, Entry)>, limit: usize, revision: u64) -> Page {
    if limit == 0 {
        return Page {
            entries: entries.collect(),
            revision,
            remaining: 0,
        };
    }
    let page = entries.by_ref().take(limit).collect();
    Page {
        entries: page,
        revision,
        remaining: entries.count(),
    }
}

/// Gives the change its revision and makes it so in memory.
pub(crate) fn apply(
    state: &mut State,
    key: &Arc<str>,
    before: Option<Entry>,
    on_disk: bool,
    change: impl FnOnce(u64) -> Change,
) -> (u64, Bytes) {
    let revision = state.revision + 1;
    let change = change(revision);
    state.revision = revision;
    let value = match &change {
        Change::Put(value) => {
            let created = before.as_ref().map_or(revision, |entry| entry.created);
            let entry = Entry {
                value: value.clone(),
                created,
                modified: revision,
                on_disk,
            };
            state.map.insert(Arc::clone(key), entry);
            value.clone()
        }
        Change::Delete(value) => {
            state.map.remove(key);
            value.clone()
        }
    };
    state.history.push(Event {
        revision,
        key: Arc::clone(key),
        change,
        before,
    });
    (revision, value)
}

/// Wakes those whose prefix fits.
pub(crate) fn wake(inner: &Inner, key: &str) {
    for watcher in inner.watchers.read().iter() {
        if key.starts_with(&*watcher.prefix) {
            watcher.signal.notify_one();
        }
    }
}
