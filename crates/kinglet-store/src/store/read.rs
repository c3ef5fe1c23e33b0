//! Reading: single keys, listings as of a revision, watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use crate::error::TooOld;
use crate::model::{Entry, Page};
use crate::watch::{Signal, Watch, Watcher};

impl Store {
    /// Returns the newest revision.
    pub fn revision(&self) -> u64 {
        self.inner.state.read().revision
    }

    /// Returns why the disk refuses writes at the moment, if it does.
    pub fn broken(&self) -> Option<String> {
        self.inner.state.read().broken.clone()
    }

    /// Returns the entry of a key.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.inner.state.read().map.get(key).cloned()
    }

    /// Returns how many keys have the prefix.
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
        let state = self.inner.state.read();
        state.history.covers(from)?;
        let signal = Arc::new(Signal::new(from, state.revision));
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
