//! Following changes under a prefix.

use std::sync::Arc;

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
/// is read too slowly falls off the bounded history and ends with [`TooOld`].
#[derive(Debug)]
pub struct Watch {
    pub(crate) inner: Arc<Inner>,
    pub(crate) prefix: Arc<str>,
    pub(crate) position: u64,
    pub(crate) signal: Arc<Notify>,
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
            self.signal.notified().await;
        }
    }

    /// The changes that are there already; moves the position even when none concern this prefix.
    pub fn ready(&mut self) -> Result<Vec<Event>, TooOld> {
        let state = self.inner.state.read();
        state.history.covers(self.position)?;
        let mut events = Vec::new();
        for event in state.history.after(self.position) {
            if event.key.starts_with(&*self.prefix) {
                if events.len() == BATCH_MAX {
                    self.signal.notify_one();
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

/// Whom to wake.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) prefix: Arc<str>,
    pub(crate) signal: Arc<Notify>,
}
