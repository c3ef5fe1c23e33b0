//! What an instance occupies on its machine: processes, mounts, links, cgroups, rules, descriptors, threads, files, disk, memory.
//!
//! Flow: a test measures a warm instance, lets it work, and asks [`Footprint::grown`] what is more than before and how it is
//! called; after the end of the instance [`Footprint::left_behind`] must be nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Names of one kind that a message has room for.
const NAMES_SHOWN: usize = 8;

/// What is counted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Processes below the instance's, by what they run.
    pub processes: Vec<String>,
    /// Mounts below its data directory.
    pub mounts: Vec<String>,
    /// Network interfaces with its names.
    pub links: Vec<String>,
    /// Control groups below its own, in all hierarchies.
    pub cgroups: Vec<String>,
    /// Elements and rules in its nftables, where `nft` is there to list them.
    pub rules: Vec<String>,
    /// Open descriptors of the process, by what they lead to; network namespaces are held by them.
    pub descriptors: Vec<String>,
    /// Threads of the process, by name.
    pub threads: Vec<String>,
    /// Files in the data directory.
    pub files: Vec<String>,
    /// Of the data directory, in kilobytes.
    pub disk_kb: u64,
    /// Resident memory of the process, in kilobytes.
    pub memory_kb: u64,
}

/// By how much a footprint may exceed an earlier one; what is not named here may not grow at all.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Connections that wait to be used again, a file that is open at this moment.
    pub descriptors: usize,
    /// Threads for blocking work live for some seconds after it.
    pub threads: usize,
    /// The store's journal, a log that was turned over.
    pub files: usize,
    /// The store's journal between two checkpoints.
    pub disk_kb: u64,
    /// Allocator and caches.
    pub memory_kb: u64,
}

impl Footprint {
    /// Of a running instance.
    pub fn of(pid: u32, data: &Path) -> Self {
        let process = Path::new("/proc").join(pid.to_string());
        Self {
            processes: descendants(pid),
            descriptors: descriptors(&process.join("fd")),
            threads: names_in(&process.join("task"))
                .map(|thread| text(&process.join("task").join(thread).join("comm")))
                .collect(),
            memory_kb: crate::instance::resident_bytes(pid) / 1024,
            ..Self::of_stopped(data)
        }
    }

    /// Of what is left of an instance that has ended.
    pub fn of_stopped(data: &Path) -> Self {
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let hash = host_hash(&data.join("node"));
        let (files, disk_kb) = files(&data);
        Self {
            mounts: mounts_below(&data),
            links: names_in(Path::new("/sys/class/net"))
                .filter(|name| {
                    name.starts_with(&format!("kb{hash}")) || name.starts_with(&format!("kv{hash}"))
                })
                .collect(),
            cgroups: cgroups(&format!("kinglet-{hash}")),
            rules: rules(&format!("kinglet_{hash}")),
            files,
            disk_kb,
            ..Self::default()
        }
    }

    /// What is still on the machine, apart from the data directory; empty after a stop in good order.
    pub fn left_behind(&self) -> Vec<String> {
        [
            ("processes", &self.processes),
            ("mounts", &self.mounts),
            ("links", &self.links),
            ("cgroups", &self.cgroups),
            ("nftables rules", &self.rules),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{} {what}: {}", names.len(), shown(names)))
        .collect()
    }

    /// What is more than in `before`, in words and by name; empty when nothing is.
    pub fn grown(&self, before: &Self, slack: Slack) -> Vec<String> {
        let named = [
            ("processes", &self.processes, &before.processes, 0),
            ("mounts", &self.mounts, &before.mounts, 0),
            ("links", &self.links, &before.links, 0),
            ("cgroups", &self.cgroups, &before.cgroups, 0),
            ("nftables rules", &self.rules, &before.rules, 0),
            (
                "descriptors",
                &self.descriptors,
                &before.descriptors,
                slack.descriptors,
            ),
            ("threads", &self.threads, &before.threads, slack.threads),
            ("files", &self.files, &before.files, slack.files),
        ];
        let named = named
            .into_iter()
            .filter(|(_, now, before, slack)| now.len() > before.len() + slack)
            .map(|(what, now, before, slack)| {
                let (count, right) = (now.len(), before.len() + slack);
                let new = shown(&without(now, before));
                format!("{count} {what}, at most {right} are right; new: {new}")
            });
        let sizes = [
            ("disk", self.disk_kb, before.disk_kb + slack.disk_kb),
            ("memory", self.memory_kb, before.memory_kb + slack.memory_kb),
        ];
        let sizes = sizes
            .into_iter()
            .filter(|(_, now, right)| now > right)
            .map(|(what, now, right)| format!("{now} kB of {what}, at most {right} are right"));
        named.chain(sizes).collect()
    }
}

/// The counts, on one line.
impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} mounts, {} links, {} cgroups, {} rules, {} descriptors, {} threads, {} files, {} kB of disk, {} kB of memory",
            self.processes.len(),
            self.mounts.len(),
            self.links.len(),
            self.cgroups.len(),
            self.rules.len(),
            self.descriptors.len(),
            self.threads.len(),
            self.files.len(),
            self.disk_kb,
            self.memory_kb
        )
    }
}

/// The names in `now` that are not in `before`, each as often as it is there more often.
fn without(now: &[String], before: &[String]) -> Vec<String> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for name in before {
        *known.entry(name).or_default() += 1;
    }
    now.iter()
        .filter(|name| match known.get_mut(name.as_str()) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        })
        .cloned()
        .collect()
}

/// Some names, equal ones once with their number.
fn shown(names: &[String]) -> String {
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counted.entry(name).or_default() += 1;
    }
    let mut words: Vec<String> = counted
        .iter()
        .take(NAMES_SHOWN)
        .map(|(name, count)| match count {
            1 => (*name).to_owned(),
            _ => format!("{count} times {name}"),
        })
        .collect();
    if counted.len() > NAMES_SHOWN {
        words.push(format!("{} more", counted.len() - NAMES_SHOWN));
    }
    words.join(", ")
}

/// The node's names on the host begin with this (`kinglet_node::HostNames`).
fn host_hash(node_directory: &Path) -> String {
    let digest = Sha256::digest(node_directory.as_os_str().as_encoded_bytes());
    let first = digest.iter().take(4);
    first.map(|byte| format!("{byte:02x}")).collect()
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn text(file: &Path) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// What descriptors lead to; numbers of sockets and pipes say nothing and are left out.
fn descriptors(folder: &Path) -> Vec<String> {
    names_in(folder)
        .filter_map(|number| fs::read_link(folder.join(number)).ok())
        .map(|target| {
            let target = target.display().to_string();
            match target.split_once(":[") {
                Some((kind @ ("socket" | "pipe" | "net"), _)) => kind.to_owned(),
                _ => target,
            }
        })
        .collect()
}

fn mounts_below(data: &Path) -> Vec<String> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = info.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(data))
        .map(str::to_owned)
        .collect()
}

/// Programs of the processes whose parents' line leads to `pid`.
fn descendants(pid: u32) -> Vec<String> {
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
    known
        .iter()
        .skip(1)
        .map(|process| text(&Path::new("/proc").join(process.to_string()).join("comm")))
        .collect()
}

/// Groups named so, and all below, in every hierarchy: ours lie below the group that the instance was started in.
fn cgroups(name: &str) -> Vec<String> {
    folders(Path::new("/sys/fs/cgroup"))
        .into_iter()
        .filter(|group| group.components().any(|part| part.as_os_str() == name))
        .map(|group| group.display().to_string())
        .collect()
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(
            below
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        all.push(folder);
    }
    all
}

/// The lines of the instance's tables, of every family.
fn rules(table: &str) -> Vec<String> {
    let listed = std::process::Command::new("nft")
        .args(["-n", "list", "ruleset"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let mut inside = false;
    let mut lines = Vec::new();
    for line in listed.lines() {
        if line.starts_with("table ") {
            inside = line.split(' ').any(|word| word == table);
        }
        if inside {
            lines.extend(line.split(',').map(|part| part.trim().to_owned()));
        }
    }
    lines.retain(|line| !line.is_empty() && line != "}");
    lines
}

/// Every file below, and the disk that they take.
fn files(root: &Path) -> (Vec<String>, u64) {
    let device = fs::symlink_metadata(root).map(|meta| meta.dev()).ok();
    let (mut names, mut blocks) = (Vec::new(), 0);
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
            left.extend(names_in(&path).map(|name| path.join(name)));
        }
        let name = path.strip_prefix(root).unwrap_or(&path);
        names.push(name.display().to_string());
    }
    (names, blocks / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let before = Footprint {
            mounts: names(&["/d/a"]),
            descriptors: names(&["socket"]),
            ..Footprint::default()
        };
        let now = Footprint {
            mounts: names(&["/d/a", "/d/b"]),
            descriptors: names(&["socket", "socket", "/dev/null"]),
            memory_kb: 2,
            ..Footprint::default()
        };
        let slack = Slack {
            descriptors: 2,
            threads: 0,
            files: 0,
            disk_kb: 0,
            memory_kb: 1,
        };
        assert_eq!(
            now.grown(&before, slack),
            [
                "2 mounts, at most 1 are right; new: /d/b",
                "2 kB of memory, at most 1 are right"
            ]
        );
        assert_eq!(now.left_behind(), ["2 mounts: /d/a, /d/b"]);
        assert_eq!(shown(&names(&["a", "a", "b"])), "2 times a, b");
    }
}
