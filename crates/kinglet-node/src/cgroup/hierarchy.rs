//! Where containers' groups live on this machine: found from `/proc/self`, made, and taken away again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, ControllerGroup, processes};
use crate::sys::devices::DeviceProgram;

/// Controllers of version 1 that containers cannot do without: limits, and the rules about devices. Every other one that
/// is mounted is used as well, since programs look for the whole set (a JVM that misses `cpuset` ignores its limits).
const NEEDED_CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "devices"];

/// Controllers switched on for containers on version 2.
const CONTROLLERS_V2: &str = "+cpu +memory +pids";

/// Where containers' groups live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// The groups above all containers, one per mount.
    V1(Vec<ControllerGroup>),
    /// One directory for all.
    V2(PathBuf),
}

impl Hierarchy {
    /// Finds out what this machine has and makes the group `name` there.
    pub fn discover(name: &str) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut found = Self::from_proc(&own, &mounts, name).ok_or_else(|| {
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
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let Some(first) = controllers.split(',').next().filter(|one| !one.is_empty()) else {
                continue;
            };
            let mount = mounts
                .lines()
                .find_map(|line| mount_of(line, "cgroup", Some(first)));
            if let Some((root, at)) = mount
                && let Some(view) = at.file_name()
            {
                v1.push(ControllerGroup {
                    controllers: controllers.to_owned(),
                    view: view.to_string_lossy().into_owned(),
                    directory: below(&at, &root, path).join(name),
                });
            }
        }
        if v1.iter().any(|group| group.has("memory")) {
            return Some(Self::V1(v1));
        }
        let (_, at) = mounts
            .lines()
            .find_map(|line| mount_of(line, "cgroup2", None))?;
        Some(Self::V2(at.join(name)))
    }

    fn prepare(&mut self) -> io::Result<()> {
        match self {
            Self::V1(groups) => {
                for controller in NEEDED_CONTROLLERS {
                    if !groups.iter().any(|group| group.has(controller)) {
                        return Err(io::Error::new(
                            io::ErrorKind::NotFound,
                            format!(
                                "the controller {controller} is not mounted: containers cannot be confined without it"
                            ),
                        ));
                    }
                }
                // A controller that we may not use is one that containers do not see.
                let mut failed = None;
                groups.retain(|group| {
                    let made = group.make().and_then(|()| inherit_cpuset(group));
                    let needed = NEEDED_CONTROLLERS.iter().any(|one| group.has(one));
                    let keep = made.is_ok();
                    match made {
                        Err(error) if needed => failed = Some(error),
                        Err(error) => {
                            tracing::debug!(controllers = group.controllers, %error, "control groups of this kind are not used");
                        }
                        Ok(()) => {}
                    }
                    keep
                });
                failed.map_or(Ok(()), Err)
            }
            Self::V2(directory) => {
                let root = directory.parent().unwrap_or(directory);
                enable_controllers(root, directory)?;
                fs::create_dir_all(&*directory)?;
                fs::write(directory.join("cgroup.subtree_control"), CONTROLLERS_V2)
            }
        }
    }

    /// A group for one container.
    pub fn make(&self, name: &str) -> io::Result<Cgroup> {
        let groups: Vec<_> = match self {
            Self::V1(all) => all.iter().map(|group| group.child(name)).collect(),
            Self::V2(directory) => vec![ControllerGroup {
                controllers: String::new(),
                view: String::new(),
                directory: directory.join(name),
            }],
        };
        let group = Cgroup {
            groups,
            version2: matches!(self, Self::V2(_)),
        };
        if let Err(error) = group.groups.iter().try_for_each(ControllerGroup::make) {
            group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// The program that guards devices where there is no controller for it: on version 2.
    pub(crate) fn device_program(&self) -> io::Result<Option<DeviceProgram>> {
        match self {
            Self::V1(_) => Ok(None),
            Self::V2(_) => DeviceProgram::load().map(Some).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("loading the rules about devices (needs a kernel with CONFIG_CGROUP_BPF): {error}"),
                )
            }),
        }
    }

    /// The groups above all containers.
    pub fn roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(all) => all.iter().map(|group| group.directory.clone()).collect(),
            Self::V2(directory) => vec![directory.clone()],
        }
    }

    /// Containers' groups below `roots`: for clearing up after a crash.
    pub fn leftovers(roots: &[PathBuf]) -> Vec<PathBuf> {
        roots
            .iter()
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    }

    /// Removes groups above all containers; those that are still in use stay. Whether all are gone.
    pub fn remove(roots: &[PathBuf]) -> bool {
        let mut all_gone = true;
        for root in roots {
            if let Err(error) = fs::remove_dir(root)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(group = %root.display(), %error, "control group stays");
                all_gone = false;
            }
        }
        all_gone
    }
}

/// Gives a group of the controller cpuset the processors of the group above it, and its children those of their parent.
fn inherit_cpuset(group: &ControllerGroup) -> io::Result<()> {
    if !group.has("cpuset") {
        return Ok(());
    }
    let parent = group.directory.parent().ok_or(io::ErrorKind::NotFound)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(file))?;
        fs::write(group.directory.join(file), value.trim())?;
    }
    fs::write(group.directory.join("cgroup.clone_children"), "1")
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
    use crate::cgroup::Limits;

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
        let memory = found.iter().find(|group| group.has("memory"));
        assert_eq!(
            memory.map(|group| (group.view.as_str(), group.directory.as_path())),
            Some((
                "memory",
                Path::new("/sys/fs/cgroup/memory/process_api/x/kinglet-1")
            ))
        );
        // systemd's hierarchy and the empty version 2 are not mounted here, or not used.
        let names: Vec<_> = found.iter().map(|group| group.view.as_str()).collect();
        assert_eq!(names, ["pids", "memory", "cpuacct", "cpu"]);
    }

    #[test]
    fn joint_controllers_are_joined_once() {
        let own = "3:cpu,cpuacct:/a\n4:memory:/a\n";
        let mounts = "1 1 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n2 1 0:2 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let Some(Hierarchy::V1(found)) = Hierarchy::from_proc(own, mounts, "k") else {
            panic!("version 1")
        };
        let views: Vec<_> = found
            .iter()
            .map(|group| (group.view.as_str(), group.directory.as_path()))
            .collect();
        let expected = [
            ("cpu,cpuacct", Path::new("/sys/fs/cgroup/cpu,cpuacct/a/k")),
            ("memory", Path::new("/sys/fs/cgroup/memory/k")),
        ];
        assert_eq!(views, expected);
        assert!(found[0].has("cpu") && found[0].has("cpuacct"));
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
    fn version_2_files_on_a_directory() {
        let root = std::env::temp_dir().join(format!("kinglet-cgroup-{}", std::process::id()));
        let mut hierarchy = Hierarchy::V2(root.join("kinglet-1"));
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
        assert_eq!(group.processes(), [12]);
        assert_eq!(
            Hierarchy::leftovers(&hierarchy.roots()),
            vec![root.join("kinglet-1/c1")]
        );
        assert_eq!(
            group.views(),
            vec![(root.join("kinglet-1/c1"), PathBuf::from("/sys/fs/cgroup"))]
        );
        fs::remove_dir_all(&root).expect("clean");
    }
}
