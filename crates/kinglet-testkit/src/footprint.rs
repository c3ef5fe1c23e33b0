//! What an instance occupies on its machine: processes, mounts, links, cgroups, descriptors, disk, memory.
//!
//! Flow: a test measures a warm instance, lets it work, and asks [`Footprint::grown`] what is more than before; after
//! the end of the instance [`Footprint::of_stopped`] must be nothing but disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Processes below the instance's.
    pub processes: usize,
    /// Mounts below its data directory.
    pub mounts: usize,
    /// Network interfaces with its names.
    pub links: usize,
    /// Control groups below its own, in all hierarchies.
    pub cgroups: usize,
    /// Open descriptors of the process; network namespaces are held by them.
    pub descriptors: usize,
    /// Of the data directory, in kilobytes.
    pub disk_kb: u64,
    /// Resident memory of the process, in kilobytes.
    pub memory_kb: u64,
}

/// By how much a footprint may exceed an earlier one; what is counted one by one may not grow at all.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Connections that wait to be used again, a file that is open at this moment.
    pub descriptors: usize,
    /// The store's journal between two checkpoints.
    pub disk_kb: u64,
    /// Allocator and caches.
    pub memory_kb: u64,
}

impl Footprint {
    /// Of a running instance.
    pub fn of(pid: u32, data: &Path) -> Self {
        Self {
            processes: descendants(pid),
            descriptors: entries(&Path::new("/proc").join(pid.to_string()).join("fd")),
            memory_kb: crate::instance::resident_bytes(pid) / 1024,
            ..Self::of_stopped(data)
        }
    }

    /// Of what is left of an instance that has ended.
    pub fn of_stopped(data: &Path) -> Self {
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let hash = host_hash(&data.join("node"));
        Self {
            mounts: mounts_below(&data),
            links: names_in(Path::new("/sys/class/net"))
                .filter(|name| {
                    name.starts_with(&format!("kb{hash}")) || name.starts_with(&format!("kv{hash}"))
                })
                .count(),
            cgroups: cgroups(&format!("kinglet-{hash}")),
            disk_kb: disk_kb(&data),
            ..Self::default()
        }
    }

    /// What is more than in `before`, in words; empty when nothing is.
    pub fn grown(&self, before: &Self, slack: Slack) -> Vec<String> {
        [
            ("processes", self.processes, before.processes),
            ("mounts", self.mounts, before.mounts),
            ("links", self.links, before.links),
            ("cgroups", self.cgroups, before.cgroups),
            (
                "descriptors",
                self.descriptors,
                before.descriptors + slack.descriptors,
            ),
            (
                "kB of disk",
                to_count(self.disk_kb),
                to_count(before.disk_kb + slack.disk_kb),
            ),
            (
                "kB of memory",
                to_count(self.memory_kb),
                to_count(before.memory_kb + slack.memory_kb),
            ),
        ]
        .into_iter()
        .filter(|(_, now, allowed)| now > allowed)
        .map(|(what, now, allowed)| format!("{now} {what}, at most {allowed} are right"))
        .collect()
    }
}

fn to_count(kilobytes: u64) -> usize {
    usize::try_from(kilobytes).unwrap_or(usize::MAX)
}

/// The node's names on the host begin with this (`kinglet_node::HostNames`).
fn host_hash(node_directory: &Path) -> String {
    let digest = Sha256::digest(node_directory.as_os_str().as_encoded_bytes());
    let first = digest.iter().take(4);
    first.map(|byte| format!("{byte:02x}")).collect()
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn entries(folder: &Path) -> usize {
    names_in(folder).count()
}

fn mounts_below(data: &Path) -> usize {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = info.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(data))
        .count()
}

/// Processes whose parents' line leads to `pid`.
fn descendants(pid: u32) -> usize {
    let parents: Vec<(u32, u32)> = names_in(Path::new("/proc"))
        .filter_map(|name| name.parse::<u32>().ok())
        .filter_map(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((process, parent.parse().ok()?))
        })
        .collect();
    let mut known = vec![pid];
    let mut next = 0;
    while let Some(above) = known.get(next).copied() {
        known.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == above)
                .map(|(process, _)| *process),
        );
        next += 1;
    }
    known.len() - 1
}

/// Groups named so, and all below, in every mounted hierarchy.
fn cgroups(name: &str) -> usize {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = names_in(root).map(|hierarchy| root.join(hierarchy));
    let roots = hierarchies
        .chain([root.to_owned()])
        .map(|root| root.join(name));
    roots
        .filter(|group| group.is_dir())
        .map(|group| folders(&group))
        .sum()
}

fn folders(root: &Path) -> usize {
    let mut count = 0;
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        count += 1;
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(
            below
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    count
}

fn disk_kb(root: &Path) -> u64 {
    let device = fs::symlink_metadata(root).map(|meta| meta.dev()).ok();
    let mut blocks = 0;
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        // Mounts below are not of this disk.
        if Some(meta.dev()) != device {
            continue;
        }
        blocks += meta.blocks();
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    blocks / 2
}
