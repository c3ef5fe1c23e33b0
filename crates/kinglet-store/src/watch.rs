//! Following changes under a prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::error::TooOld;
use crate::model::Entry;
use crate::store::Inner;

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It holds this now.
    Put(Bytes),
    /// It is gone; this was its last form, as the deleter wrote it.
    Delete(Bytes),
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the history.
    pub revision: u64,
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub change: Change,
    /// What the key held before.
    pub before: Option<Entry>,
}

/// A position in the history under a prefix.
///
/// Guarantee: every change under the prefix after the starting revision, once, in order. It holds no buffer of its own: one that
/// is read too slowly falls off the bounded history and ends with [`TooOld`]. One whose prefix is quiet does not, whatever is
/// forgotten meanwhile.
#[derive(Debug)]
pub struct Watch {
    pub(crate) inner: Arc<Inner>,
    pub(crate) prefix: Arc<str>,
    pub(crate) position: u64,
    pub(crate) signal: Arc<Signal>,
}

/// Changes handed out at once; more wait for the next call, so that one reader holds the lock only briefly.
const BATCH_MAX: usize = 256;

impl Watch {
    /// The revision up to which everything under the prefix has been handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits for the next changes; at least one.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Event>, TooOld> {
        loop {
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.signal.notify.notified().await;
        }
    }

    /// The changes that are there already; moves the position even when none concern this prefix.
    pub fn ready(&mut self) -> Result<Vec<Event>, TooOld> {
        let state = self.inner.state.read();
        let floor = state.history.floor();
        let unread = self.signal.unread.swap(NOTHING, Ordering::AcqRel);
        if unread <= floor {
            self.signal.mark(unread);
            return Err(TooOld {
                asked: self.position,
                oldest: floor,
            });
        }
        // What is forgotten concerned other prefixes.
        self.position = self.position.max(floor);
        let mut events = Vec::new();
        for event in state.history.after(self.position) {
            if event.key.starts_with(&*self.prefix) {
                if events.len() == BATCH_MAX {
                    self.signal.mark(event.revision);
                    self.signal.notify.notify_one();
                    return Ok(events);
                }
                events.push(event.clone());
            }
            self.position = event.revision;
        }
        self.position = self.position.max(state.revision);
        Ok(events)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner
            .watchers
            .write()
            .retain(|watcher| !Arc::ptr_eq(&watcher.signal, &self.signal));
    }
}

/// No change.
const NOTHING: u64 = u64::MAX;

/// What a watch waits for.
#[derive(Debug)]
pub(crate) struct Signal {
    /// The oldest change under the prefix that was not handed out. Written and taken under the lock on the state, so that
    /// it is exact.
    unread: AtomicU64,
    pub(crate) notify: Notify,
}

impl Signal {
    /// Of a watch from a revision, while the newest is `now`: what lies between was not looked at yet.
    pub(crate) fn new(from: u64, now: u64) -> Self {
        let unread = if from < now { from + 1 } else { NOTHING };
        Self {
            unread: AtomicU64::new(unread),
            notify: Notify::new(),
        }
    }

    pub(crate) fn mark(&self, revision: u64) {
        self.unread.fetch_min(revision, Ordering::AcqRel);
    }
}

/// Whom to wake.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) prefix: Arc<str>,
    pub(crate) signal: Arc<Signal>,
}
