//! Control groups: one per container, under one group per data directory; version 1, version 2 and the hybrid.
//!
//! Flow: [`Hierarchy::discover`] once -> [`Hierarchy::make`] while a container is parked -> [`Cgroup::limit`] when it is known
//! what runs there -> [`Cgroup::was_out_of_memory`] and [`Cgroup::remove`] after it ended.
//! Always: paths come from `/proc/self`, never from an assumption that this process is at the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Controllers that containers use on version 1.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];
/// Controllers switched on for containers on version 2.
const CONTROLLERS_V2: &str = "+cpu +memory +pids";
/// The period that quotas are measured in.
pub(crate) const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// A kubelet's least number of shares.
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;

/// What a container may use; `None` is without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requested CPU in thousandths of a core: its weight against others.
    pub cpu_request_milli: u64,
    /// Bound of CPU in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Bound of memory in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Bound of processes and threads.
    pub pids_max: Option<u64>,
}

/// Where containers' groups live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// One directory per controller (name, group above all containers).
    V1(Vec<(&'static str, PathBuf)>),
    /// One directory for all.
    V2(PathBuf),
}

/// The group of one container.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directories: Vec<(&'static str, PathBuf)>,
    version2: bool,
}

impl Hierarchy {
    /// Finds out what this machine has and makes the group `name` there.
    pub fn discover(name: &str) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let found = Self::from_proc(&own, &mounts, name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no control groups are mounted under /sys/fs/cgroup",
            )
        })?;
        found.prepare()?;
        Ok(found)
    }

    /// The same from the text of the two files.
    fn from_proc(own: &str, mounts: &str, name: &str) -> Option<Self> {
        let mut v1 = Vec::new();
        for controller in CONTROLLERS {
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let controllers = parts.nth(1)?;
                controllers
                    .split(',')
                    .any(|one| one == controller)
                    .then(|| parts.next())
                    .flatten()
            });
            let mount = mounts
                .lines()
                .find_map(|line| mount_of(line, "cgroup", Some(controller)));
            if let (Some(path), Some((root, at))) = (path, mount) {
                v1.push((controller, below(&at, &root, path).join(name)));
            }
        }
        if v1.iter().any(|(controller, _)| *controller == "memory") {
            // Where cpu and cpuacct are one mount, joining once is enough.
            v1.dedup_by(|later, earlier| later.1 == earlier.1);
            return Some(Self::V1(v1));
        }
        let (_, at) = mounts
            .lines()
            .find_map(|line| mount_of(line, "cgroup2", None))?;
        Some(Self::V2(at.join(name)))
    }

    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::V1(directories) => directories
                .iter()
                .try_for_each(|(_, directory)| fs::create_dir_all(directory)),
            Self::V2(directory) => {
                let root = directory.parent().unwrap_or(directory);
                enable_controllers(root, directory)?;
                fs::create_dir_all(directory)?;
                fs::write(directory.join("cgroup.subtree_control"), CONTROLLERS_V2)
            }
        }
    }

    /// A group for one container.
    pub fn make(&self, name: &str) -> io::Result<Cgroup> {
        let directories: Vec<_> = match self {
            Self::V1(all) => all
                .iter()
                .map(|(controller, directory)| (*controller, directory.join(name)))
                .collect(),
            Self::V2(directory) => vec![("", directory.join(name))],
        };
        directories
            .iter()
            .try_for_each(|(_, directory)| fs::create_dir_all(directory))?;
        Ok(Cgroup {
            directories,
            version2: matches!(self, Self::V2(_)),
        })
    }

    /// The groups above all containers.
    pub fn roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(all) => all.iter().map(|(_, directory)| directory.clone()).collect(),
            Self::V2(directory) => vec![directory.clone()],
        }
    }

    /// Containers' groups below `roots` with the processes in them: for clearing up after a crash.
    pub fn leftovers(roots: &[PathBuf]) -> Vec<Leftover> {
        let mut found = Vec::new();
        for root in roots {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let directory = entry.path();
                    let pids = processes(&directory);
                    found.push(Leftover { directory, pids });
                }
            }
        }
        found
    }

    /// Removes groups above all containers; those that are still in use stay.
    pub fn remove(roots: &[PathBuf]) {
        for root in roots {
            if let Err(error) = fs::remove_dir(root)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(group = %root.display(), %error, "control group stays");
            }
        }
    }
}

/// A container's group that nobody looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The group.
    pub directory: PathBuf,
    /// Who is in it.
    pub pids: Vec<i32>,
}

impl Cgroup {
    /// Files a process writes itself into to join.
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.directories
            .iter()
            .map(|(_, directory)| directory.join("cgroup.procs"))
            .collect()
    }

    /// What the container sees of it, and where.
    pub fn views(&self) -> Vec<(PathBuf, PathBuf)> {
        let seen = Path::new("/sys/fs/cgroup");
        let at = |controller: &str| {
            if controller.is_empty() {
                seen.to_owned()
            } else {
                seen.join(controller)
            }
        };
        self.directories
            .iter()
            .map(|(controller, directory)| (directory.clone(), at(controller)))
            .collect()
    }

    /// Applies limits. A limit that this kernel does not offer is skipped with a warning.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        for (controller, file, value) in settings(self.version2, limits) {
            let Some((_, directory)) = self
                .directories
                .iter()
                .find(|(name, _)| *name == controller)
            else {
                continue;
            };
            let path = directory.join(file);
            match fs::write(&path, &value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(file, value, "this kernel has no such limit");
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("writing {value} to {}: {error}", path.display()),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel killed something in here for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        let (controller, file) = if self.version2 {
            ("", "memory.events")
        } else {
            ("memory", "memory.oom_control")
        };
        self.directories
            .iter()
            .find(|(name, _)| *name == controller)
            .and_then(|(_, directory)| fs::read_to_string(directory.join(file)).ok())
            .is_some_and(|text| kills_in(&text) > 0)
    }

    /// Who is in it.
    pub fn processes(&self) -> Vec<i32> {
        self.directories
            .first()
            .map(|(_, directory)| processes(directory))
            .unwrap_or_default()
    }

    /// Removes the group; `false` while the kernel still sees a process in it.
    pub fn remove(&self) -> bool {
        self.directories
            .iter()
            .fold(true, |gone, (_, directory)| remove_group(directory) && gone)
    }
}

/// Removes one empty group; `false` when it must be tried again.
pub(crate) fn remove_group(directory: &Path) -> bool {
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn processes(directory: &Path) -> Vec<i32> {
    fs::read_to_string(directory.join("cgroup.procs"))
        .map(|text| {
            text.lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

fn kills_in(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Which files say what: (version 1 controller, file, value).
fn settings(version2: bool, limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let shares = (limits.cpu_request_milli * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
    // At least a millisecond per period, as a kubelet has it: less is refused by the kernel.
    let quota = limits
        .cpu_limit_milli
        .map(|milli| (milli * CPU_PERIOD_MICROSECONDS / 1000).max(1000));
    let mut files = Vec::new();
    if version2 {
        // The kernel's mapping of shares 2..=262144 to weights 1..=10000.
        let weight = 1 + (shares - CPU_SHARES_MIN) * 9_999 / (CPU_SHARES_MAX - CPU_SHARES_MIN);
        files.push(("", "cpu.weight", weight.to_string()));
        if let Some(quota) = quota {
            files.push(("", "cpu.max", format!("{quota} {CPU_PERIOD_MICROSECONDS}")));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            files.push(("", "memory.max", bytes.to_string()));
            // One process out of memory ends the container, not a random part of it.
            files.push(("", "memory.oom.group", "1".to_owned()));
        }
        if let Some(pids) = limits.pids_max {
            files.push(("", "pids.max", pids.to_string()));
        }
    } else {
        files.push(("cpu", "cpu.shares", shares.to_string()));
        if let Some(quota) = quota {
            files.push((
                "cpu",
                "cpu.cfs_period_us",
                CPU_PERIOD_MICROSECONDS.to_string(),
            ));
            files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            files.push(("memory", "memory.limit_in_bytes", bytes.to_string()));
        }
        if let Some(pids) = limits.pids_max {
            files.push(("pids", "pids.max", pids.to_string()));
        }
    }
    files
}

/// Root and mount point of a line of mountinfo, if it is this kind of file system (with this option).
fn mount_of(line: &str, kind: &str, option: Option<&str>) -> Option<(String, PathBuf)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    if right.next()? != kind {
        return None;
    }
    if let Some(option) = option
        && !right.nth(1)?.split(',').any(|one| one == option)
    {
        return None;
    }
    let mut left = left.split(' ');
    Some((left.nth(3)?.to_owned(), PathBuf::from(left.next()?)))
}

/// The directory of group `path` in a hierarchy whose group `root` is mounted at `at`.
fn below(at: &Path, root: &str, path: &str) -> PathBuf {
    let inside = path
        .strip_prefix(root.trim_end_matches('/'))
        .unwrap_or(path);
    at.join(inside.trim_start_matches('/'))
}

/// Version 2 gives controllers only to groups whose parent holds no process (the machine's root excepted): in a
/// container, everybody moves into a leaf first.
fn enable_controllers(root: &Path, ours: &Path) -> io::Result<()> {
    let file = root.join("cgroup.subtree_control");
    let Err(error) = fs::write(&file, CONTROLLERS_V2) else {
        return Ok(());
    };
    if error.raw_os_error() != Some(libc::EBUSY) {
        return Err(error);
    }
    let leaf = ours.with_extension("main");
    fs::create_dir_all(&leaf)?;
    for pid in processes(root) {
        // Somebody may have ended in between.
        let _ = fs::write(leaf.join("cgroup.procs"), pid.to_string());
    }
    fs::write(&file, CONTROLLERS_V2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_OWN: &str =
        "9:name=systemd:/\n8:pids:/\n4:memory:/process_api/x\n2:cpuacct:/\n1:cpu:/\n0::/\n";
    const HYBRID_MOUNTS: &str = "\
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
31 29 0:27 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
32 29 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
33 29 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
34 29 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_machine_uses_version_1_below_its_own_group() {
        let Some(Hierarchy::V1(found)) =
            Hierarchy::from_proc(HYBRID_OWN, HYBRID_MOUNTS, "kinglet-1")
        else {
            panic!("version 1")
        };
        assert_eq!(
            found[0],
            (
                "memory",
                PathBuf::from("/sys/fs/cgroup/memory/process_api/x/kinglet-1")
            )
        );
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn joint_controllers_are_joined_once() {
        let own = "3:cpu,cpuacct:/a\n4:memory:/a\n";
        let mounts = "1 1 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n2 1 0:2 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let Some(Hierarchy::V1(found)) = Hierarchy::from_proc(own, mounts, "k") else {
            panic!("version 1")
        };
        let expected = vec![
            ("memory", PathBuf::from("/sys/fs/cgroup/memory/k")),
            ("cpu", PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/k")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_pure_version_2_machine() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchy::from_proc("0::/user.slice/session-1.scope\n", mounts, "kinglet-1");
        assert_eq!(
            found,
            Some(Hierarchy::V2(PathBuf::from("/sys/fs/cgroup/kinglet-1")))
        );
        assert_eq!(Hierarchy::from_proc("0::/\n", "", "k"), None);
    }

    #[test]
    fn limits_become_files() {
        let limits = Limits {
            cpu_request_milli: 100,
            cpu_limit_milli: Some(500),
            memory_limit_bytes: Some(128 << 20),
            pids_max: Some(64),
        };
        let v1: Vec<_> = settings(false, &limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v1,
            [
                "cpu.shares=102",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=134217728",
                "pids.max=64"
            ]
        );
        let v2: Vec<_> = settings(true, &limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v2,
            [
                "cpu.weight=4",
                "cpu.max=50000 100000",
                "memory.max=134217728",
                "memory.oom.group=1",
                "pids.max=64"
            ]
        );
        assert_eq!(settings(false, &Limits::default()).len(), 1);
    }

    #[test]
    fn version_2_files_on_a_directory() {
        let root = std::env::temp_dir().join(format!("kinglet-cgroup-{}", std::process::id()));
        let hierarchy = Hierarchy::V2(root.join("kinglet-1"));
        fs::create_dir_all(&root).expect("directory");
        hierarchy.prepare().expect("prepare");
        assert_eq!(
            fs::read_to_string(root.join("cgroup.subtree_control")).expect("file"),
            CONTROLLERS_V2
        );
        let group = hierarchy.make("c1").expect("group");
        group
            .limit(&Limits {
                memory_limit_bytes: Some(1),
                ..Limits::default()
            })
            .expect("limits");
        assert_eq!(
            fs::read_to_string(root.join("kinglet-1/c1/memory.max")).expect("file"),
            "1"
        );
        assert!(!group.was_out_of_memory());
        fs::write(
            root.join("kinglet-1/c1/memory.events"),
            "low 0\noom 1\noom_kill 2\n",
        )
        .expect("file");
        assert!(group.was_out_of_memory());
        fs::write(root.join("kinglet-1/c1/cgroup.procs"), "12\n").expect("file");
        assert_eq!(
            Hierarchy::leftovers(&hierarchy.roots()),
            vec![Leftover {
                directory: root.join("kinglet-1/c1"),
                pids: vec![12]
            }]
        );
        assert_eq!(
            group.views(),
            vec![(root.join("kinglet-1/c1"), PathBuf::from("/sys/fs/cgroup"))]
        );
        fs::remove_dir_all(&root).expect("clean");
    }
}
