//! Removing a container's control group with everything that the container made below it.
//!
//! A container with rights over its group can nest groups as deeply as it likes: the walk goes down and up by descriptor,
//! holds one directory at a time and uses no stack.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::process::Signal;

use crate::sys::process;

/// Groups that one attempt removes at most; what is left is for the next attempt.
const STEPS_MAX: u32 = 20_000;

/// What became of a group that was tried to be removed.
enum Removal {
    Done,
    /// It has groups below it, or processes.
    Busy,
}

/// Kills what runs in the group and removes it; `false` when it must be tried again.
pub(crate) fn clear(directory: &Path) -> bool {
    // Version 2 kills everything below at once, where the kernel is new enough.
    if let Ok(mut kill) = OpenOptions::new()
        .write(true)
        .open(directory.join("cgroup.kill"))
    {
        let _ = kill.write_all(b"1");
    }
    if let Ok(Removal::Done) = remove(CWD, directory) {
        return true;
    }
    let Ok(mut here) = open(CWD, directory) else {
        return false;
    };
    let mut depth = 0_u32;
    // Where the walk last found nothing below, unless something was removed since.
    let mut emptied_at = None;
    for _ in 0..STEPS_MAX {
        let Ok((removed, child)) = remove_children(&here) else {
            return false;
        };
        if removed {
            emptied_at = None;
        }
        match child {
            Some(child) => {
                here = child;
                depth += 1;
            }
            None if depth == 0 => break,
            // Nothing is below: the group itself is removed from the one above it.
            None => {
                if kill_all(&here) || emptied_at == Some(depth) {
                    return false;
                }
                emptied_at = Some(depth);
                let Ok(parent) = open(&here, "..") else {
                    return false;
                };
                here = parent;
                depth -= 1;
            }
        }
    }
    if kill_all(&here) {
        return false;
    }
    matches!(remove(CWD, directory), Ok(Removal::Done))
}

/// Removes the groups below this one until one has to be emptied first: whether any went, and that one.
fn remove_children(group: &OwnedFd) -> io::Result<(bool, Option<OwnedFd>)> {
    let mut removed = false;
    for entry in Dir::read_from(group)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match remove(group, name)? {
            Removal::Done => removed = true,
            Removal::Busy => return Ok((removed, Some(open(group, name)?))),
        }
    }
    Ok((removed, None))
}

fn remove(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Removal> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(Removal::Done),
        Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => Ok(Removal::Busy),
        Err(error) => Err(error.into()),
    }
}

fn open(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Kills the processes of this one group; whether there were any.
fn kill_all(group: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = String::new();
    let read = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).read_to_string(&mut text));
    if read.is_err() {
        return false;
    }
    let mut any = false;
    for pid in process_ids(&text) {
        any = true;
        if let Ok(found) = process::open(pid) {
            let _ = process::signal(found, Signal::KILL);
        }
    }
    any
}

/// The numbers in a `cgroup.procs` file. A process outside of our pid namespace is 0 and cannot be named.
pub(super) fn process_ids(text: &str) -> impl Iterator<Item = i32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_directories_go_whatever_their_depth() {
        let root = std::env::temp_dir().join(format!("kinglet-nested-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).expect("directory");
        std::fs::create_dir_all(root.join("a/c/d")).expect("directory");
        // Far deeper than a path can say, and than a stack would bear.
        let mut here = open(CWD, &root).expect("root");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "deep", Mode::from_raw_mode(0o755)).expect("deeper");
            here = open(&here, "deep").expect("deeper");
        }
        assert!(clear(&root));
        assert!(!root.exists());
        assert!(clear(&root), "gone is gone");
    }

    #[test]
    fn processes_of_other_namespaces_are_left_out() {
        assert_eq!(process_ids("12\n0\n x\n7\n").collect::<Vec<_>>(), [12, 7]);
    }
}
