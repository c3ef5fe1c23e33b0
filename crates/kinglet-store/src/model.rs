//! The store's data types: entries, pages, expectations, durability, options.

use std::sync::Arc;

use bytes::Bytes;

/// When a write reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The write is answered when it is on stable storage.
    Synced,
    /// The write is visible at once and reaches the disk later, in the same order.
    Trailing,
    /// The write need not reach the disk. A key that is on disk already is written as with [`Durability::Trailing`].
    Memory,
}

/// The precondition of a write on its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    Revision(u64),
    /// No precondition.
    Any,
}

impl Expect {
    /// Returns whether the entry meets the precondition.
    pub(crate) fn is_met(self, before: Option<&Entry>) -> bool {
        match (self, before) {
            (Self::Absent, None) | (Self::Any, _) => true,
            (Self::Revision(revision), Some(entry)) => entry.modified == revision,
            (Self::Absent, Some(_)) | (Self::Revision(_), None) => false,
        }
    }
}

/// The value of a key with its revisions.
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
    /// How many keys follow this page.
    pub remaining: usize,
}

/// Limits, each with where it comes from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Changes kept for watchers and paging. 16,384: a burst of 1,000 Services with their chains.
    pub history_events_max: usize,
    /// Bytes kept for the same. 8 MiB: about 5,000 changes, or the chains of 100 Services; an eighth of the idle memory budget.
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
            history_bytes_max: 8 << 20,
            backlog_bytes_max: 64 << 20,
            revision_block: 1 << 20,
            disk_bytes_max: None,
            restamp: |value, _| value.clone(),
        }
    }
}
