//! The store's handle: opening, closing, and what all clones share.

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

use crate::disk::Disk;
use crate::error::{OpenError, WriteError};
use crate::history::History;
use crate::lock;
use crate::model::{Entry, Options};
use crate::state::State;
use crate::watch::Watcher;
use crate::writer::{self, Queue};

pub use write::Write;
pub(crate) use write::{mark, wake};

/// What stays of the history in quiet times, so that watchers that come back and readers of pages find their place: 1 MiB,
/// about 600 changes. A watch cache of Kubernetes keeps 100 of each kind.
const HISTORY_AT_REST_BYTES: usize = 1 << 20;

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
    /// Whether the writer thread has ended.
    pub(crate) writer_ended: tokio::sync::watch::Sender<bool>,
}

/// Tells, also when the writer thread panics, that nothing is written any more.
struct WriterEnds(Arc<Inner>);

impl Drop for WriterEnds {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let detail = "the thread that writes to the disk panicked".to_owned();
            self.0.state.write().broken = Some(detail);
        }
        self.0.queue.refuse();
        self.0.writer_ended.send_replace(true);
    }
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
        // The ceiling is on disk before a revision below it is used, so no revision is used twice.
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
        #[expect(
            clippy::disallowed_methods,
            reason = "`WriterEnds` tells when it ends or panics"
        )]
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let inner = Arc::clone(&inner);
                move || {
                    let ends = WriterEnds(inner);
                    writer::run(&ends.0, disk, held);
                }
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
            writer_ended: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Forgets history up to and including `revision`; slower watchers get [`TooOld`].
    pub fn compact(&self, revision: u64) {
        self.inner.state.write().history.compact(revision);
    }

    /// Forgets the oldest changes up to and including `revision` while what is kept takes more than a quiet time needs. Gives
    /// the bytes of them.
    pub fn rest(&self, revision: u64) -> usize {
        let mut state = self.inner.state.write();
        state.history.shrink(revision, HISTORY_AT_REST_BYTES)
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

    /// Returns when the thread that writes to the disk has ended: after [`Store::close`], or because it panicked. A store
    /// without a disk has none.
    pub async fn writer_ended(&self) {
        let mut ended = self.inner.writer_ended.subscribe();
        // The sender lives as long as `self`.
        let _ = ended.wait_for(|ended| *ended).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    async fn a_writer_that_panics_is_told_and_nothing_is_acknowledged_any_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Options::default()).expect("a store");
        let ends = WriterEnds(Arc::clone(&store.inner));
        let panicked = std::thread::spawn(move || {
            let _ends = ends;
            panic!("in the middle of a commit");
        });
        panicked.join().expect_err("a panic");
        store.writer_ended().await;
        assert!(store.broken().is_some_and(|why| why.contains("panicked")));
        assert!(matches!(store.flush().await, Err(WriteError::Closed)));
    }
}
