//! A pod's volumes and the files that every container gets (`/etc/hosts` and its kin).
//!
//! Flow: [`contents`] works out the files of each volume (pure) -> [`disk`] writes them -> [`mounts`] says what a container sees.
//! Always: what comes from the API lies in memory, never on a disk, and changes all at once (a symbolic link that is
//! replaced); everything of a pod lies below two directories named after its uid.

pub(crate) mod contents;
pub(crate) mod disk;
pub(crate) mod etc;
pub(crate) mod mounts;

use std::path::{Path, PathBuf};

/// Where the things of one pod lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDirectories {
    /// On disk: containers' own files, `emptyDir`.
    pub(crate) disk: PathBuf,
    /// In memory: everything from the API.
    pub(crate) memory: PathBuf,
}

impl PodDirectories {
    pub(crate) fn new(data: &Path, uid: &str) -> Self {
        Self {
            disk: data.join("pods").join(uid),
            memory: memory_root(data).join(uid),
        }
    }

    pub(crate) fn volume(&self, name: &str, in_memory: bool) -> PathBuf {
        let base = if in_memory { &self.memory } else { &self.disk };
        base.join("volumes").join(name)
    }

    /// For one life of a container.
    pub(crate) fn container(&self, name: &str, attempt: u32) -> PathBuf {
        self.disk
            .join("containers")
            .join(name)
            .join(attempt.to_string())
    }

    pub(crate) fn termination_log(&self, name: &str, attempt: u32) -> PathBuf {
        self.memory
            .join("termination")
            .join(format!("{name}-{attempt}"))
    }

    pub(crate) fn etc(&self, file: &str) -> PathBuf {
        self.memory.join("etc").join(file)
    }
}

/// The file system in memory of one data directory.
pub(crate) fn memory_root(data: &Path) -> PathBuf {
    data.join("memory")
}
