//! What the kernel shows of itself: `/proc`, `/sys`, control groups, `/dev` with its file systems.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_remount};

use super::detached::DetachedMount;
use super::{PickedUp, QUIET, failed};
use crate::sys::container::{HelperError, container_root};
use crate::sys::mount_target::{self, TargetKind};
use crate::sys::new_mount::{self, place_on};
use crate::wire::Isolation;

/// Where programs look for control groups.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Kind, place, flags and options of one of the kernel's file systems.
pub(super) type KernelMount = (&'static str, &'static str, MountFlags, &'static str);

pub(super) fn kernel_table(isolation: &Isolation) -> [KernelMount; 6] {
    let sys_flags = if isolation.privileged {
        QUIET
    } else {
        QUIET | MountFlags::RDONLY
    };
    [
        ("proc", "/proc", QUIET, ""),
        // Not `nodev`: this is where the container's devices are.
        (
            "tmpfs",
            "/dev",
            MountFlags::NOSUID | MountFlags::STRICTATIME,
            "size=65536k,mode=755",
        ),
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("mqueue", "/dev/mqueue", QUIET, ""),
        ("tmpfs", "/dev/shm", QUIET, "mode=1777,size=65536k"),
        ("sysfs", "/sys", sys_flags, ""),
    ]
}

/// Mounts the kernel's file systems into the root, which is `/` by now, but those that are mounted already.
pub(super) fn kernel_file_systems(
    isolation: &Isolation,
    picked_up: &PickedUp,
) -> Result<(), HelperError> {
    let root = container_root().map_err(HelperError::setup("opening /"))?;
    let is_mapped = picked_up.devices.is_some();
    for (kind, target, flags, options) in kernel_table(isolation) {
        match (target, &picked_up.devices, &picked_up.shared_memory) {
            ("/proc" | "/sys", ..) if is_mapped => {}
            ("/dev", Some(devices), _) => attach_tree(&root, devices, target)?,
            ("/dev/shm", _, Some(shared)) => shared.attach()?,
            _ => mount_kernel(&root, kind, target, flags, options)?,
        }
    }
    Ok(())
}

/// Attaches a tree that was made ahead to a directory of the root.
pub(super) fn attach_tree(root: &OwnedFd, tree: &OwnedFd, target: &str) -> Result<(), HelperError> {
    let what = format!("mounting {target}");
    own_directory(root, target)?;
    let place = mount_target::open(root, Path::new(target), TargetKind::Directory)
        .map_err(HelperError::setup(&what))?;
    place_on(tree, &place).map_err(failed(&what))
}

/// What the list of mounts says that a file system comes from.
pub(super) fn source_of(kind: &'static str, target: &str) -> &'static str {
    if target == "/dev/shm" { "shm" } else { kind }
}

/// A link here would let a program choose later what lies behind our masks (runc refuses it, too).
pub(super) fn own_directory(root: &OwnedFd, target: &str) -> Result<(), HelperError> {
    let name = target.trim_start_matches('/');
    let found = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW);
    if found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory) {
        return Err(HelperError::setup(format_args!("making {target}"))(
            io::Error::other("the image has something else than a directory there"),
        ));
    }
    Ok(())
}

pub(super) fn mount_kernel(
    root: &OwnedFd,
    kind: &'static str,
    target: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), HelperError> {
    own_directory(root, target)?;
    let place = mount_target::open(root, Path::new(target), TargetKind::Directory)
        .map_err(HelperError::setup(format_args!("making {target}")))?;
    let mounted = new_mount::detached(kind, source_of(kind, target), flags, options)
        .and_then(|tree| place_on(&tree, &place));
    match mounted {
        Ok(()) => Ok(()),
        // Not every kernel has POSIX message queues.
        Err(rustix::io::Errno::NODEV) if kind == "mqueue" => Ok(()),
        Err(error) => Err(failed(format_args!("mounting {target}"))(error)),
    }
}

/// Shows control groups at `at`, an empty directory: version 2 is one mount; version 1 is a directory of mounts, with a
/// link for each controller of a joint one.
pub(super) fn show_cgroups(at: &Path, cgroups: &[DetachedMount]) -> Result<(), HelperError> {
    let what = format!("mounting {}", at.display());
    if let [one] = cgroups
        && one.target == Path::new(CGROUPS)
    {
        return one.place_on(&directory(at).map_err(failed(&what))?);
    }
    mount("tmpfs", at, "tmpfs", QUIET, c"mode=755").map_err(failed(&what))?;
    for one in cgroups {
        let Some(view) = one.target.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let place = at.join(view);
        fs::create_dir(&place).map_err(HelperError::setup(&what))?;
        one.place_on(&directory(&place).map_err(failed(&what))?)?;
        for controller in view.split(',').filter(|controller| *controller != view) {
            symlink(view, at.join(controller)).map_err(HelperError::setup(&what))?;
        }
    }
    mount_remount(at, QUIET | MountFlags::RDONLY, c"mode=755").map_err(failed(&what))
}

/// A directory of ours, which is no link.
pub(super) fn directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
