//! What can go wrong, and whose turn it is then.

use std::path::PathBuf;

use crate::model::Entry;

/// Opening the data directory did not work.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("the data directory {} is in use by another process{}", dir.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// The directory or a file in it cannot be made or read.
    #[error("opening {}", path.display())]
    Io {
        /// What was opened.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The database is not one, or broken.
    #[error("the database {} is damaged: {detail}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What the engine says.
        detail: String,
    },
    /// The database was written by a newer program.
    #[error("the database {} has format {found}, this program knows format {known}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Format in the file.
        found: i64,
        /// Format we write.
        known: i64,
    },
    /// The engine cannot open or prepare the database for another reason (permissions, full disk).
    #[error("opening the database {}: {detail}", file.display())]
    Engine {
        /// The file.
        file: PathBuf,
        /// What the engine says.
        detail: String,
    },
}

/// A write was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not in the state the caller expected.
    #[error("the key changed in between")]
    Conflict {
        /// What is there now.
        current: Option<Entry>,
    },
    /// The disk does not take it (full, broken); nothing of it remains.
    #[error("the data directory cannot be written: {detail}")]
    Refused {
        /// What the engine says.
        detail: String,
    },
    /// More is waiting for the disk than may wait.
    #[error("{bytes} bytes are waiting for the disk already")]
    Backlog {
        /// How much waits.
        bytes: usize,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// The revision asked for is before the kept history (or from another life).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is too old, history begins at {oldest}")]
pub struct TooOld {
    /// The revision asked for.
    pub asked: u64,
    /// The oldest one that would do.
    pub oldest: u64,
}
