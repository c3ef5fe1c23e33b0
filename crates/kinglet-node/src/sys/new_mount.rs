//! Mounts that are made and placed by descriptor, so that no path that an image or a volume could redirect is followed.
//!
//! A path below `/proc/self/fd` would not do: before the container has a `/proc` of its own, the image decides what is there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

/// A new file system that is mounted nowhere yet. `options` are written as mount(8) has them: `size=1m,mode=755`.
pub(crate) fn detached(
    kind: &str,
    source: &str,
    flags: MountFlags,
    options: &str,
) -> rustix::io::Result<OwnedFd> {
    let file_system = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&file_system, "source", source)?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&file_system, key, value)?,
            None => fsconfig_set_flag(&file_system, option)?,
        }
    }
    fsconfig_create(&file_system)?;
    fsmount(
        &file_system,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes(flags),
    )
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (
            MountFlags::STRICTATIME,
            MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        ),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(MountAttrFlags::empty(), |all, (_, attribute)| {
        all | attribute
    })
}

/// The same file or directory once more, as a mount that has no place yet.
pub(crate) fn again(of: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(of, c"", flags)
}

/// Puts a mount that has no place yet onto an open file or directory.
pub(crate) fn place_on(tree: impl AsFd, place: impl AsFd) -> rustix::io::Result<()> {
    const HERE: &CStr = c"";
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, HERE, place, HERE, flags)
}

/// A file system of the kernel's own, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelFiles {
    Proc,
    Sys,
}

/// Which of them an open file belongs to.
pub(crate) fn kernel_files(file: impl AsFd) -> io::Result<Option<KernelFiles>> {
    const PROC: u64 = 0x9fa0;
    const SYS: u64 = 0x6265_6572;
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(match u64::try_from(kind) {
        Ok(PROC) => Some(KernelFiles::Proc),
        Ok(SYS) => Some(KernelFiles::Sys),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_known_by_their_file_system() {
        let of = |path: &str| {
            let file = std::fs::File::open(path).expect(path);
            kernel_files(file).expect(path)
        };
        assert_eq!(of("/proc/self/fd"), Some(KernelFiles::Proc));
        assert_eq!(of("/proc/sys/kernel"), Some(KernelFiles::Proc));
        assert_eq!(of("/sys/devices"), Some(KernelFiles::Sys));
        assert_eq!(of("/"), None);
    }

    #[test]
    fn flags_are_translated() {
        assert_eq!(
            attributes(MountFlags::RDONLY | MountFlags::NOEXEC),
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC
        );
        assert!(attributes(MountFlags::empty()).is_empty());
    }
}
