//! File systems in memory: the node's own, and one for each volume that needs it. Everything here blocks.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use super::disk::make_directory;
use crate::volumes::memory_root;

/// Mounts the node's memory, after letting go what an earlier life left mounted.
pub(crate) fn open_memory(data: &Path) -> io::Result<()> {
    if let Err(error) = close_memory(data) {
        tracing::debug!(%error, "something of an earlier life stays mounted");
    }
    let root = memory_root(data);
    make_directory(&root, 0o700)?;
    mount(
        "tmpfs",
        &root,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0700",
    )?;
    // What is mounted below must show up in processes that are parked already.
    mount_change(&root, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// Lets everything below the node's memory go.
pub(crate) fn close_memory(data: &Path) -> io::Result<()> {
    unmount_below(&memory_root(data))
}

/// Unmounts all it can, and says why the first of the rest stays.
pub(super) fn unmount_below(root: &Path) -> io::Result<()> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mut below: Vec<PathBuf> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(root))
        .collect();
    below.sort();
    let mut done = Ok(());
    for path in below.iter().rev() {
        if let Err(error) = unmount(path, UnmountFlags::DETACH) {
            tracing::debug!(path = %path.display(), %error, "not unmounted");
            done = done.and(Err(error.into()));
        }
    }
    done
}

/// A path as `/proc/self/mountinfo` writes it: space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) if first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// A file system in memory with a size of its own, mounted once.
pub(super) fn mount_memory(directory: &Path, options: &str) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    make_directory(directory, 0o755)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = CString::new(options)?;
    mount("tmpfs", directory, "tmpfs", flags, options.as_c_str()).map_err(|error| {
        // Tried again from the start, never used without its bound.
        let _ = fs::remove_dir(directory);
        io::Error::from(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_odd_names_are_found() {
        assert_eq!(
            unescape(br"/a\040b\011c\134d\012"),
            Path::new("/a b\tc\\d\n")
        );
        assert_eq!(unescape(br"/plain\"), Path::new(r"/plain\"));
    }
}
