//! Writing: preconditions, the change in memory, the queue for the disk.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Inner, Store};
use crate::error::WriteError;
use crate::model::{Durability, Entry, Expect};
use crate::state::{State, apply};
use crate::watch::Change;
use crate::writer::Op;

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
        if !expect.is_met(before.as_ref()) {
            return Err(WriteError::Conflict { current: before });
        }
        let to_disk = state.persistent
            && (durability != Durability::Memory || before.as_ref().is_some_and(|e| e.on_disk));
        let synced = to_disk && durability == Durability::Synced;
        self.admit(&state, to_disk, synced)?;
        let key: Arc<str> = match state.map.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let (revision, value) = apply(&mut state, &key, before.clone(), to_disk, change);
        mark(&self.inner, &key, revision);
        let mut settled = None;
        if to_disk {
            settled = self.enqueue(&state, &key, before, synced);
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

    /// Refuses a write that the disk cannot take: it is broken, no revision is reserved, or too much waits.
    fn admit(&self, state: &State, to_disk: bool, synced: bool) -> Result<(), WriteError> {
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
        Ok(())
    }

    /// Queues the key's new value for the disk. The caller holds the lock on the state, so that the queue has the order
    /// of the history. Returns the answer to wait for if the write is to be synced.
    fn enqueue(
        &self,
        state: &State,
        key: &Arc<str>,
        before: Option<Entry>,
        synced: bool,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        let (reply, settled) = if synced {
            let (reply, settled) = oneshot::channel();
            (Some(reply), Some(settled))
        } else {
            (None, None)
        };
        self.inner.queue.push(Op {
            key: Arc::clone(key),
            line: state.map.get(key).cloned(),
            before,
            reply,
        });
        settled
    }
}

/// Notes the change for the watchers whose prefix the key has. The caller holds the lock on the state.
pub(crate) fn mark(inner: &Inner, key: &str, revision: u64) {
    for watcher in inner.watchers.read().iter() {
        if key.starts_with(&*watcher.prefix) {
            watcher.signal.mark(revision);
        }
    }
}

/// Wakes the watchers whose prefix the key has.
pub(crate) fn wake(inner: &Inner, key: &str) {
    for watcher in inner.watchers.read().iter() {
        if key.starts_with(&*watcher.prefix) {
            watcher.signal.notify.notify_one();
        }
    }
}
