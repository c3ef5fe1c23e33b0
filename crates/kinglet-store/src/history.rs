//! The bounded ring of recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::error::TooOld;
use crate::model::Entry;
use crate::watch::{Change, Event};

/// What one event costs besides its bytes, roughly.
const EVENT_OVERHEAD_BYTES: usize = 160;

#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// The newest revision that is no longer in the ring (or the one we started with).
    floor: u64,
}

impl History {
    pub(crate) fn new(floor: u64, events_max: usize, bytes_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            events_max,
            bytes_max,
            floor,
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > self.events_max
            || (self.bytes > self.bytes_max && self.events.len() > 1)
        {
            let Some(gone) = self.events.pop_front() else {
                break;
            };
            self.bytes -= size(&gone);
            self.floor = gone.revision;
        }
    }

    /// Forgets everything up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self
            .events
            .front()
            .is_some_and(|event| event.revision <= revision)
        {
            if let Some(gone) = self.events.pop_front() {
                self.bytes -= size(&gone);
                self.floor = gone.revision;
            }
        }
    }

    /// Forgets what is as old as `revision`, oldest first, until what is left takes `bytes`. Gives the bytes forgotten.
    pub(crate) fn shrink(&mut self, revision: u64, bytes: usize) -> usize {
        let before = self.bytes;
        while self.bytes > bytes
            && let Some(gone) = self
                .events
                .pop_front_if(|oldest| oldest.revision <= revision)
        {
            self.bytes -= size(&gone);
            self.floor = gone.revision;
        }
        if self.events.capacity() > 4 * self.events.len() {
            self.events.shrink_to_fit();
        }
        before - self.bytes
    }

    /// The newest revision that is forgotten.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Is everything after `revision` still here?
    pub(crate) fn covers(&self, revision: u64) -> Result<(), TooOld> {
        if revision < self.floor {
            Err(TooOld {
                asked: revision,
                oldest: self.floor,
            })
        } else {
            Ok(())
        }
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn after(&self, revision: u64) -> impl Iterator<Item = &Event> {
        let start = self
            .events
            .partition_point(|event| event.revision <= revision);
        self.events.range(start..)
    }

    /// What the keys under `prefix` that changed after `revision` held at it.
    pub(crate) fn undo(&self, prefix: &str, revision: u64) -> BTreeMap<Arc<str>, Option<Entry>> {
        let mut before = BTreeMap::new();
        for event in self
            .after(revision)
            .filter(|event| event.key.starts_with(prefix))
        {
            if !before.contains_key(&event.key) {
                before.insert(Arc::clone(&event.key), event.before.clone());
            }
        }
        before
    }
}

fn size(event: &Event) -> usize {
    // The value of a put is shared with memory until the next change; what the ring alone keeps is the one before.
    let own = match &event.change {
        Change::Put(_) => 0,
        Change::Delete(value) => value.len(),
    };
    EVENT_OVERHEAD_BYTES
        + event.key.len()
        + own
        + event.before.as_ref().map_or(0, |entry| entry.value.len())
}
