//! Control groups: one per container, under one group per data directory; version 1, version 2 and the hybrid.
//!
//! Flow: [`Hierarchy::discover`] once -> [`Hierarchy::make`] and [`Cgroup::confine_devices`] while a container is parked ->
//! [`Cgroup::limit`] when it is known what runs there -> [`Cgroup::was_out_of_memory`] and [`Cgroup::remove`] after it ended.
//! Always: paths come from `/proc/self`, never from an assumption that this process is at the root; what containers made
//! below their group is walked without recursion.

mod clear;
mod hierarchy;
mod limits;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub(crate) use clear::clear;
pub use hierarchy::Hierarchy;
pub use limits::Limits;
use limits::settings;

use crate::sys::devices::{self, DeviceProgram};

/// A group in one hierarchy of version 1 (or, with empty names, of version 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerGroup {
    /// The controllers of the hierarchy, as `/proc/self/cgroup` names them: `cpu,cpuacct`, `name=systemd`.
    pub controllers: String,
    /// The directory below `/sys/fs/cgroup` where programs look for it.
    pub view: String,
    /// The group.
    pub directory: PathBuf,
}

impl ControllerGroup {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|one| one == controller)
    }

    fn child(&self, name: &str) -> Self {
        Self {
            directory: self.directory.join(name),
            ..self.clone()
        }
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)
            .map_err(|error| attempted("making", &self.directory, &error))
    }
}

fn attempted(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

/// The group of one container.
#[derive(Clone, Debug)]
pub struct Cgroup {
    groups: Vec<ControllerGroup>,
    version2: bool,
}

impl Cgroup {
    /// Files a process writes itself into to join.
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .map(|group| group.directory.join("cgroup.procs"))
            .collect()
    }

    /// What the container sees of it, and where.
    pub fn views(&self) -> Vec<(PathBuf, PathBuf)> {
        let visible = Path::new("/sys/fs/cgroup");
        self.groups
            .iter()
            .map(|group| {
                let at = if group.view.is_empty() {
                    visible.to_owned()
                } else {
                    visible.join(&group.view)
                };
                (group.directory.clone(), at)
            })
            .collect()
    }

    /// Lets processes in the group open harmless devices only. `program` is that of [`Hierarchy::device_program`].
    pub(crate) fn confine_devices(&self, program: Option<&DeviceProgram>) -> io::Result<()> {
        match program {
            Some(program) => program.attach(&self.version2_directory()?),
            None => {
                self.write("devices", "devices.deny", "a")?;
                let path = self
                    .directory_of("devices")
                    .ok_or(io::ErrorKind::NotFound)?
                    .join("devices.allow");
                let file = fs::OpenOptions::new().write(true).open(&path);
                let mut file = file.map_err(|error| attempted("opening", &path, &error))?;
                // The kernel takes one rule at a time.
                devices::allow_lines().try_for_each(|line| {
                    file.write_all(line.as_bytes())
                        .map_err(|error| attempted(&format!("writing {line} to"), &path, &error))
                })
            }
        }
    }

    /// Takes the rules about devices away again.
    pub(crate) fn allow_all_devices(&self, program: Option<&DeviceProgram>) -> io::Result<()> {
        match program {
            Some(program) => program.detach(&self.version2_directory()?),
            None => self.write("devices", "devices.allow", "a"),
        }
    }

    fn version2_directory(&self) -> io::Result<fs::File> {
        let group = self.groups.first().ok_or(io::ErrorKind::NotFound)?;
        fs::File::open(&group.directory)
            .map_err(|error| attempted("opening", &group.directory, &error))
    }

    fn directory_of(&self, controller: &str) -> Option<&Path> {
        let group = self.groups.iter().find(|group| group.has(controller));
        group.map(|group| group.directory.as_path())
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let path = self
            .directory_of(controller)
            .ok_or(io::ErrorKind::NotFound)?
            .join(file);
        fs::write(&path, value).map_err(|error| {
            // The kernel says "permission denied" of a file that it does not have.
            if path.exists() {
                attempted(&format!("writing {value} to"), &path, &error)
            } else {
                io::Error::from(io::ErrorKind::NotFound)
            }
        })
    }

    /// Applies limits. A limit that this kernel does not offer is skipped with a warning.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        for (controller, file, value) in settings(self.version2, limits) {
            match self.write(controller, file, &value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(file, value, "this kernel has no such limit");
                }
                Err(error) => return Err(error),
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
        self.directory_of(controller)
            .and_then(|directory| fs::read_to_string(directory.join(file)).ok())
            .is_some_and(|text| kills_in(&text) > 0)
    }

    /// Who is in it.
    pub fn processes(&self) -> Vec<i32> {
        self.groups
            .first()
            .map(|group| processes(&group.directory))
            .unwrap_or_default()
    }

    /// Removes the group and all that a container made below it; kills what still runs there. `false` while the kernel
    /// still sees a process in it.
    pub fn remove(&self) -> bool {
        let left = self.groups.iter().filter(|group| !clear(&group.directory));
        left.count() == 0
    }
}

/// Applies the rules about devices to a group of version 2 and everything below it, until the group is gone.
pub fn confine_version_2(group: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    DeviceProgram::load()?.attach(group)
}

fn processes(directory: &Path) -> Vec<i32> {
    fs::read_to_string(directory.join("cgroup.procs"))
        .map(|text| clear::process_ids(&text).collect())
        .unwrap_or_default()
}

fn kills_in(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
