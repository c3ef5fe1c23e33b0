//! The keys in memory with their history, and how a change is made in both.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::history::History;
use crate::model::Entry;
use crate::watch::{Change, Event};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) map: BTreeMap<Arc<str>, Entry>,
    pub(crate) history: History,
    pub(crate) revision: u64,
    /// Revisions up to this one are reserved on disk (or will be lost with everything else, in memory).
    pub(crate) ceiling: u64,
    /// Set while the disk refuses writes.
    pub(crate) broken: Option<String>,
    /// Whether there is a disk.
    pub(crate) persistent: bool,
}

impl State {
    pub(crate) fn under<'a>(
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

/// Gives the change its revision and applies it to the keys and the history.
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
