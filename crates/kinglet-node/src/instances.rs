//! Which instances of Kinglet are on this machine, and what the dead ones left.
//!
//! An instance that is killed leaves control groups, links, a packet filter table and mounts; its next start clears them. But
//! there may be no next start: a test that was killed, a data directory that somebody removed. So each instance writes down
//! what it puts on the host, in a file that it holds locked for as long as it lives, and each start clears up after those whose
//! lock nobody holds.
//!
//! Flow: [`Instance::enter`] and [`Instance::write`] before anything is put on the host -> [`dead`] -> the engine clears ->
//! [`Instance::leave`] last.
//! Always: what has no file here is left alone (another version may have made it); the lock, not a process id, says who lives;
//! files of a data directory are never touched, only what is mounted there is let go.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::names::HostNames;

/// Emptied when the machine starts, as is everything that is written down here.
const DIRECTORY: &str = "/run/kinglet/instances";
/// Instances that one start clears up after; more are left to the next.
const DEAD_MAX: usize = 256;
/// A record is a few hundred bytes; this is for one that somebody spoilt.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// What an instance puts on the host, where its name does not say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The data directory, from which all names derive.
    pub(crate) data: PathBuf,
    /// Groups above all containers.
    pub(crate) cgroups: Vec<PathBuf>,
}

impl Record {
    pub(crate) fn names(&self) -> HostNames {
        HostNames::new(&self.data)
    }
}

/// A locked record. The lock goes with it, also when the process is killed.
#[derive(Debug)]
pub(crate) struct Instance {
    path: PathBuf,
    file: File,
}

impl Instance {
    /// Says that the instance of this data directory lives. What an earlier life wrote down stays until [`Instance::write`].
    /// [`io::ErrorKind::WouldBlock`] while another instance clears up after an earlier life of this one.
    pub(crate) fn enter(names: &HostNames) -> io::Result<Self> {
        Self::enter_at(Path::new(DIRECTORY), names)
    }

    /// The file of the instance of this data directory.
    pub(crate) fn record_of(names: &HostNames) -> PathBuf {
        Path::new(DIRECTORY).join(names.hash())
    }

    fn enter_at(directory: &Path, names: &HostNames) -> io::Result<Self> {
        // What is written here decides what a later start removes as root.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        check_private(directory)?;
        let path = directory.join(names.hash());
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.try_lock()?;
            // Whoever held the lock before may have removed the file.
            if is_at(&file, &path) {
                return Ok(Self { path, file });
            }
        }
    }

    /// Writes down what this life puts on the host, before it does. Whenever this process is killed, the file holds either
    /// what an earlier life wrote or this: blanks cover what was longer, and only then the file is cut.
    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_vec(record).map_err(io::Error::other)?;
        let bytes = text.len();
        let former = usize::try_from(self.file.metadata()?.len()).unwrap_or(0);
        text.resize(bytes.max(former), b' ');
        self.file.rewind()?;
        self.file.write_all(&text)?;
        self.file.set_len(bytes as u64)
    }

    /// Removes the record: nothing is left on the host.
    pub(crate) fn leave(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file = %self.path.display(), %error, "the record of this instance stays");
        }
    }
}

/// The records of instances that have ended without clearing up, each locked when its turn comes: whoever starts again
/// meanwhile waits for its own only. Call [`Instance::leave`] when nothing is left of one.
pub(crate) fn dead() -> impl Iterator<Item = (Record, Instance)> + Send {
    let directory = Path::new(DIRECTORY);
    let is_private = check_private(directory).is_ok();
    is_private.then(|| dead_at(directory)).into_iter().flatten()
}

fn dead_at(directory: &Path) -> impl Iterator<Item = (Record, Instance)> + Send + use<> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| lock_dead(entry.path()))
        .take(DEAD_MAX)
}

/// Takes the lock of a record, unless its instance lives.
fn lock_dead(path: PathBuf) -> Option<(Record, Instance)> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags).ok()?)
        .open(&path)
        .ok()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return None,
        Err(TryLockError::Error(error)) => {
            tracing::debug!(file = %path.display(), %error, "not locked");
            return None;
        }
    }
    if !is_at(&file, &path) {
        return None;
    }
    let mut text = Vec::new();
    file.rewind().ok()?;
    (&file).take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
    let record: Option<Record> = serde_json::from_slice(&text).ok();
    let instance = Instance { path, file };
    // Names are believed only if they are those of the directory, and groups only if they bear the name.
    let believed = record.filter(|record| {
        let names = record.names();
        instance
            .path
            .file_name()
            .is_some_and(|name| name == names.hash())
            && record.cgroups.iter().all(|group| {
                group.is_absolute()
                    && group
                        .file_name()
                        .is_some_and(|last| last == names.cgroup().as_str())
            })
    });
    match believed {
        Some(record) => Some((record, instance)),
        // Killed before it had written anything, and so before it had put anything on the host.
        None => {
            instance.leave();
            None
        }
    }
}

/// A directory that another user can write to, or has led elsewhere, says nothing about instances.
fn check_private(directory: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(directory)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} must be a directory that only root writes to: remove it",
            directory.display()
        ),
    ))
}

/// Whether an open file is the one that a path names now.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &str) -> Record {
        let names = HostNames::new(Path::new(data));
        Record {
            data: data.into(),
            cgroups: vec![Path::new("/sys/fs/cgroup").join(names.cgroup())],
        }
    }

    #[test]
    fn the_lock_says_who_lives() {
        let directory = kinglet_testkit::instance::scratch("instances");
        let enter = |data: &str| {
            let names = record(data).names();
            let mut instance = Instance::enter_at(&directory, &names).expect("entered");
            instance.write(&record(data)).expect("written");
            instance
        };
        let living = enter("/living");
        let killed = enter("/killed");
        assert!(dead_at(&directory).next().is_none(), "both live");
        // As the kernel does at the end of a process.
        drop(killed);
        let found: Vec<_> = dead_at(&directory).collect();
        let [(found_record, found)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(*found_record, record("/killed"));
        found.leave();
        let again = enter("/killed");
        assert!(dead_at(&directory).next().is_none());
        again.leave();
        living.leave();
        assert!(
            std::fs::read_dir(&directory)
                .expect("there")
                .next()
                .is_none()
        );
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    /// The process may be killed between any two system calls.
    #[test]
    fn a_record_is_one_life_or_the_next_and_never_half() {
        let directory = kinglet_testkit::instance::scratch("instances");
        let (long, short) = (record("/data"), {
            let mut short = record("/data");
            short.cgroups.clear();
            short
        });
        let mut instance = Instance::enter_at(&directory, &long.names()).expect("entered");
        instance.write(&long).expect("written");
        let before = std::fs::read(&instance.path).expect("text").len();
        instance.write(&short).expect("written");
        let after = std::fs::read(&instance.path).expect("text").len();
        assert!(after < before);
        // Killed before the file was cut: blanks are there still.
        instance.file.set_len(0).expect("cut");
        instance.write(&short).expect("written");
        let blanks = [
            std::fs::read(&instance.path).expect("text"),
            vec![b' '; before - after],
        ];
        std::fs::write(&instance.path, blanks.concat()).expect("written");
        drop(instance);
        let found: Vec<_> = dead_at(&directory).map(|(record, _)| record).collect();
        assert_eq!(found, [short]);
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn directories_of_others_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = kinglet_testkit::instance::scratch("instances");
        std::fs::create_dir_all(&directory).expect("directory");
        let mode = |mode| {
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode))
                .expect("mode");
        };
        let names = record("/data").names();
        mode(0o777);
        Instance::enter_at(&directory, &names).expect_err("everybody writes there");
        mode(0o755);
        let link = directory.join("link");
        std::os::unix::fs::symlink(&directory, &link).expect("link");
        Instance::enter_at(&link, &names).expect_err("it leads elsewhere");
        drop(Instance::enter_at(&directory, &names).expect("ours"));
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn spoilt_records_are_not_believed() {
        let directory = kinglet_testkit::instance::scratch("instances");
        std::fs::create_dir_all(&directory).expect("directory");
        let names = HostNames::new(Path::new("/data"));
        let write =
            |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("written");
        write(
            names.hash(),
            r#"{"data": "/data", "cgroups": ["/sys/fs/cgroup"]}"#,
        );
        write("other", r#"{"data": "/data", "cgroups": []}"#);
        write("half", r#"{"data": "/da"#);
        assert!(dead_at(&directory).next().is_none());
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
