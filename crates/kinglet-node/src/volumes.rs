//! A pod's volumes and the files that every container gets (`/etc/hosts` and its kin).
//!
//! Flow: [`contents`] works out the files of each volume (pure) -> [`disk`] writes them -> [`mounts`] says what a container sees.
//! Always: what comes from the API lies in memory, never on a disk, changes all at once (a symbolic link that is replaced), and
//! is mounted read-only into containers; what a container may write in memory is a file system of its own with a size of its
//! own; everything of a pod lies below two directories named after its uid. Nothing that a container wrote is removed in
//! place: it is moved to the [`Trash`](kinglet_process::Trash) of the node.

pub(crate) mod contents;
pub(crate) mod disk;
pub(crate) mod etc;
mod files;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod usage;

use std::path::{Path, PathBuf};

/// A volume that is ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedVolume {
    pub(crate) path: PathBuf,
    /// Files from the API: containers never write them (as with a kubelet).
    pub(crate) read_only: bool,
    /// A path of the host: device nodes there work.
    pub(crate) of_host: bool,
}

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

    /// The file for a container's last words; its directory is a file system of its own.
    pub(crate) fn termination_log(&self, name: &str, attempt: u32) -> PathBuf {
        self.memory
            .join("termination")
            .join(format!("{name}-{attempt}"))
            .join("message")
    }

    /// Where the containers' logs lie.
    pub(crate) fn logs(&self) -> PathBuf {
        self.disk.join("logs")
    }

    pub(crate) fn etc(&self, file: &str) -> PathBuf {
        self.memory.join("etc").join(file)
    }
}

/// The file system in memory of one data directory.
pub(crate) fn memory_root(data: &Path) -> PathBuf {
    data.join("memory")
}

/// Where files of pods wait for their removal.
pub(crate) fn trash(data: &Path) -> PathBuf {
    data.join("trash")
}
