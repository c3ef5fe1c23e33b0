//! How much disk a pod uses, and whether that is more than it may (a kubelet's local storage eviction).
//!
//! Always: a walk over what a container makes is iterative, holds two descriptors, follows no link, stays on its file system and
//! ends after [`ENTRIES_MAX`] entries; a directory that is moved meanwhile ends the walk with what was counted.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kinglet_quantity::Quantity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::volumes::PodDirectories;

/// Entries looked at per walk; a pod with more is measured by those.
const ENTRIES_MAX: u64 = 1_000_000;
/// Files with several names that are remembered, so that each counts once.
const LINKED_MAX: usize = 100_000;
/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;

/// Something that is measured together and has a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageLimit {
    /// Trees that count.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) bytes_max: u64,
    /// What is said when it is exceeded, in a kubelet's words.
    pub(crate) message: String,
}

/// Everything that the pod's spec limits.
pub(crate) fn limits(pod: &Pod, directories: &PodDirectories) -> Vec<StorageLimit> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let mut limits = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let Some(empty) = &volume.empty_dir else {
            continue;
        };
        // Memory is limited by its file system.
        if empty.medium.as_deref() == Some("Memory") {
            continue;
        }
        if let Some(limit) = &empty.size_limit
            && let Some(bytes_max) = bytes(&limit.0)
        {
            limits.push(StorageLimit {
                paths: vec![directories.volume(&volume.name, false)],
                bytes_max,
                message: format!(
                    "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                    volume.name, limit.0
                ),
            });
        }
    }
    let mut total = 0_u64;
    for container in &spec.containers {
        let limit = container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref()?.get("ephemeral-storage"));
        let Some((text, bytes_max)) = limit.and_then(|text| Some((&text.0, bytes(&text.0)?)))
        else {
            continue;
        };
        total = total.saturating_add(bytes_max);
        limits.push(StorageLimit {
            paths: vec![
                directories.disk.join("containers").join(&container.name),
                directories.logs().join(&container.name),
            ],
            bytes_max,
            message: format!(
                "Container {} exceeded its local ephemeral storage limit {text:?}. ",
                container.name
            ),
        });
    }
    if total > 0 {
        limits.push(StorageLimit {
            paths: vec![directories.disk.clone()],
            bytes_max: total,
            message: format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
            ),
        });
    }
    limits
}

fn bytes(text: &str) -> Option<u64> {
    let bytes = Quantity::parse(text).ok()?.units();
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The first limit that is exceeded. Blocks.
pub(crate) fn exceeded(limits: &[StorageLimit]) -> Option<&StorageLimit> {
    limits.iter().find(|limit| {
        let mut walk = Walk {
            bytes: 0,
            bytes_max: limit.bytes_max,
            entries_left: ENTRIES_MAX,
            linked: HashSet::new(),
        };
        for path in &limit.paths {
            walk.tree(path);
        }
        walk.bytes > limit.bytes_max
    })
}

struct Walk {
    bytes: u64,
    bytes_max: u64,
    entries_left: u64,
    linked: HashSet<u64>,
}

/// A directory on the way down: which it is, and what of it is still to be looked into.
struct Level {
    identity: (u64, u64),
    pending: Vec<CString>,
}

impl Walk {
    fn is_done(&self) -> bool {
        self.bytes > self.bytes_max || self.entries_left == 0
    }

    fn tree(&mut self, path: &Path) {
        let Ok(mut current) = rustix::fs::openat(CWD, path, FLAGS, Mode::empty()) else {
            return;
        };
        let Some(first) = self.level(&current) else {
            return;
        };
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            if self.is_done() {
                return;
            }
            let device = level.identity.0;
            if let Some(name) = level.pending.pop() {
                let Ok(inside) =
                    rustix::fs::openat(&current, name.as_c_str(), FLAGS, Mode::empty())
                else {
                    continue;
                };
                if let Some(next) = self.level(&inside)
                    && next.identity.0 == device
                {
                    levels.push(next);
                    current = inside;
                }
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { return };
            let up = rustix::fs::openat(&current, "..", FLAGS, Mode::empty());
            match up {
                Ok(up) if identity(&up) == Some(above.identity) => current = up,
                // Somebody moved the directory away from where it was found: the next walk counts the rest.
                _ => return,
            }
        }
    }

    /// Counts what lies directly in a directory.
    fn level(&mut self, directory: &OwnedFd) -> Option<Level> {
        let identity = identity(directory)?;
        let mut pending = Vec::new();
        for entry in Dir::read_from(directory).ok()?.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(meta) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.entries_left = self.entries_left.saturating_sub(1);
            let again = meta.st_nlink > 1
                && FileType::from_raw_mode(meta.st_mode) != FileType::Directory
                && self.linked.len() < LINKED_MAX
                && !self.linked.insert(meta.st_ino);
            if !again {
                let blocks = u64::try_from(meta.st_blocks).unwrap_or(0);
                self.bytes = self.bytes.saturating_add(blocks * BLOCK_BYTES);
            }
            if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
                pending.push(name.to_owned());
            }
            if self.is_done() {
                break;
            }
        }
        Some(Level { identity, pending })
    }
}

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn identity(directory: &OwnedFd) -> Option<(u64, u64)> {
    let meta = rustix::fs::fstat(directory).ok()?;
    Some((meta.st_dev, meta.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limit(path: &Path, bytes_max: u64) -> [StorageLimit; 1] {
        [StorageLimit {
            paths: vec![path.to_owned()],
            bytes_max,
            message: String::new(),
        }]
    }

    #[test]
    fn what_a_pod_may_use_and_what_is_said() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [
                {"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
                {"name": "b", "resources": {"limits": {"ephemeral-storage": "1Ki"}}},
                {"name": "c"},
            ],
            "volumes": [
                {"name": "v", "emptyDir": {"sizeLimit": "2Mi"}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
                {"name": "free", "emptyDir": {}},
            ],
        }}))
        .expect("pod");
        let directories = PodDirectories::new(Path::new("/node"), "uid");
        let said: Vec<(u64, String)> = limits(&pod, &directories)
            .into_iter()
            .map(|limit| (limit.bytes_max, limit.message))
            .collect();
        assert_eq!(
            said,
            [
                (
                    2 << 20,
                    "Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". ".to_owned()
                ),
                (
                    1 << 20,
                    "Container a exceeded its local ephemeral storage limit \"1Mi\". ".to_owned()
                ),
                (
                    1 << 10,
                    "Container b exceeded its local ephemeral storage limit \"1Ki\". ".to_owned()
                ),
                (
                    (1 << 20) + (1 << 10),
                    "Pod ephemeral local storage usage exceeds the total limit of containers 1049600. "
                        .to_owned()
                ),
            ]
        );
    }

    #[test]
    fn deep_linked_and_wide_trees_are_measured() {
        let root = std::env::temp_dir().join(format!("kinglet-usage-{}", std::process::id()));
        let _ = kinglet_process::trash::remove_tree(&root);
        std::fs::create_dir_all(&root).expect("root");
        assert_eq!(exceeded(&limit(&root.join("none"), 1)), None);
        std::fs::write(root.join("file"), vec![1; 64 << 10]).expect("file");
        for name in ["second", "third", "fourth"] {
            std::fs::hard_link(root.join("file"), root.join(name)).expect("link");
        }
        assert!(exceeded(&limit(&root, 128 << 10)).is_none(), "counted once");
        assert!(exceeded(&limit(&root, 32 << 10)).is_some());
        // Deeper than a path or the descriptors of a process.
        let mut directory = rustix::fs::openat(CWD, &root, FLAGS, Mode::empty()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
            directory = rustix::fs::openat(&directory, "d", FLAGS, Mode::empty()).expect("open");
        }
        let file = rustix::fs::openat(
            &directory,
            "f",
            OFlags::WRONLY | OFlags::CREATE,
            Mode::RUSR | Mode::WUSR,
        )
        .expect("file");
        std::io::Write::write_all(&mut std::fs::File::from(file), &vec![1; 64 << 20])
            .expect("full");
        assert!(
            exceeded(&limit(&root, 40 << 20)).is_some(),
            "found at the end"
        );
        // A link to somewhere large is a link.
        let other = root.join("other");
        std::fs::create_dir(&other).expect("other");
        std::os::unix::fs::symlink("/usr", other.join("usr")).expect("link");
        assert!(exceeded(&limit(&other, 64 << 10)).is_none());
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }
}
