//! What waits for a writer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::channel::Channel;
use super::super::progress::Entry;
use super::super::{AppendError, Position, Retention, Settled, StoredEvent};
use super::segments::Segments;

/// Which of a writer's channels.
pub(crate) type Key = u64;

/// How long progress may gather before it is written.
pub(crate) const LINGER: Duration = Duration::from_millis(20);
/// How often a writer looks after what nobody waits for.
const TICK: Duration = Duration::from_secs(1);
/// KiB of events that wait for a writer; who comes later waits for room. Two events of the largest size.
const WAITING_KIB_MAX: usize = 33 << 10;
/// Lines of progress that wait while a disk stalls. Beyond, a channel's progress is written as a whole afterwards.
const WAITING_ENTRIES_MAX: usize = 100_000;

/// One thing for the writer to do.
pub(crate) enum Item {
    Adopt(Key, Box<Segments>, Arc<Channel>),
    Append(Key, Append),
    Progress(Key, Entry),
    Retain(Key, Retention),
    Remove(Key, oneshot::Sender<()>),
}

/// An event that somebody waits for.
pub(crate) struct Append {
    pub(crate) event: StoredEvent,
    pub(crate) settle: Option<oneshot::Sender<Settled>>,
    pub(crate) reply: oneshot::Sender<Result<Position, AppendError>>,
    pub(crate) room: OwnedSemaphorePermit,
}

/// What waits for one writer.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    entries: usize,
    /// Channels whose progress did not find room.
    overflowed: HashSet<Key>,
    urgent: bool,
    closed: bool,
}

/// What a writer takes at once.
pub(crate) struct Taken {
    pub(crate) items: Vec<Item>,
    pub(crate) overflowed: HashSet<Key>,
    pub(crate) closed: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            room: Arc::new(Semaphore::new(WAITING_KIB_MAX)),
        }
    }

    /// Waits for room; none when the writer has ended.
    pub(crate) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).ok()?;
        Arc::clone(&self.room).acquire_many_owned(kib).await.ok()
    }

    /// Somebody waits for this one. Dropped when the writer has ended, and with it the reply.
    pub(crate) fn push(&self, item: Item) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        waiting.items.push(item);
        let wake = !std::mem::replace(&mut waiting.urgent, true);
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Nobody waits for this one.
    pub(crate) fn trail(&self, key: Key, entry: Entry) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        if waiting.entries >= WAITING_ENTRIES_MAX {
            waiting.overflowed.insert(key);
            return;
        }
        waiting.entries += 1;
        let wake = waiting.items.is_empty();
        waiting.items.push(Item::Progress(key, entry));
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Nothing more comes; what waits is still written.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    /// Drops what waits, and the replies with it.
    pub(crate) fn clear(&self) {
        self.close();
        let dropped = std::mem::take(&mut *self.waiting.lock());
        self.waiting.lock().closed = true;
        drop(dropped);
    }

    /// Waits for something to do, or a tick.
    pub(crate) fn take(&self) -> Taken {
        let mut waiting = self.waiting.lock();
        if waiting.items.is_empty() && !waiting.closed {
            self.filled.wait_for(&mut waiting, TICK);
        }
        if !waiting.items.is_empty() && !waiting.urgent && !waiting.closed {
            self.filled.wait_for(&mut waiting, LINGER);
        }
        waiting.urgent = false;
        waiting.entries = 0;
        Taken {
            items: std::mem::take(&mut waiting.items),
            overflowed: std::mem::take(&mut waiting.overflowed),
            closed: waiting.closed,
        }
    }
}
