//! Flags of a mount that is not attached yet, with everything mounted below it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::mount::MountFlags;

/// `struct mount_attr` of the kernel.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Adds `flags`. Read-only is for the mount itself (what is mounted below it keeps its own), the others are for all.
pub(crate) fn set(tree: impl AsFd, flags: MountFlags) -> io::Result<()> {
    let mut everywhere = 0;
    for (flag, attribute) in [
        (MountFlags::NOSUID, MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MOUNT_ATTR_NOEXEC),
    ] {
        if flags.contains(flag) {
            everywhere |= attribute;
        }
    }
    if everywhere != 0 {
        let attributes = Attributes {
            set: everywhere,
            ..Attributes::default()
        };
        apply(&tree, libc::AT_RECURSIVE, &attributes)?;
    }
    if flags.contains(MountFlags::RDONLY) {
        let attributes = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        apply(&tree, 0, &attributes)?;
    }
    Ok(())
}

/// Shows the files of the mount with the ids that `user_namespace` maps them to.
pub(crate) fn map_ids(tree: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let descriptor = u64::try_from(user_namespace.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let attributes = Attributes {
        set: MOUNT_ATTR_IDMAP,
        user_namespace: descriptor,
        ..Attributes::default()
    };
    apply(tree, libc::AT_RECURSIVE, &attributes)
}

fn apply(tree: impl AsFd, flags: libc::c_int, attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the path is an empty C string, `attributes` has the kernel's layout and its size is told; the kernel only
    // reads both.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
