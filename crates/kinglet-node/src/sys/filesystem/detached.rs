//! Mounts that have no place yet: picked up from the host before the root changes, attached after it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, OpenTreeFlags, mount_remount, open_tree};

use super::failed;
use crate::sys::container::{HelperError, container_root, descriptor_path};
use crate::sys::mount_target::{self, TargetKind};
use crate::sys::new_mount::place_on;
use crate::sys::{masks, mount_attributes};

/// A mount that has no place yet.
pub(super) struct DetachedMount {
    pub(super) tree: OwnedFd,
    pub(super) target: PathBuf,
    kind: TargetKind,
    flags: MountFlags,
    /// The kernel was too old to set the flags before the mount is attached.
    flags_missing: bool,
}

impl DetachedMount {
    /// Attaches it below `/`, which is the container's by now.
    pub(super) fn attach(&self) -> Result<(), HelperError> {
        let what = format!("mounting on {}", self.target.display());
        let place = mount_point(&self.target, self.kind).map_err(HelperError::setup(&what))?;
        self.place_on(&place)
    }

    /// Attaches it to a place that is the Pod's or the image's to choose, within limits.
    pub(super) fn attach_volume(&self) -> Result<(), HelperError> {
        let what = format!("mounting on {}", self.target.display());
        let place = mount_point(&self.target, self.kind).map_err(HelperError::setup(&what))?;
        masks::check_place(&place, &self.target)?;
        self.place_on(&place)
    }

    /// Attaches it to a place that has been found.
    pub(super) fn place_on(&self, place: &OwnedFd) -> Result<(), HelperError> {
        let what = format!("mounting on {}", self.target.display());
        place_on(&self.tree, place).map_err(failed(&what))?;
        if self.flags_missing && !self.flags.is_empty() {
            remount(&self.tree, self.flags).map_err(failed(&what))?;
        }
        Ok(())
    }
}

pub(super) fn pick_up(
    source: &Path,
    sub_path: Option<&Path>,
    target: &Path,
    flags: MountFlags,
) -> Result<DetachedMount, HelperError> {
    let what = match sub_path {
        Some(sub_path) => format!(
            "mounting {} of {} on {}",
            sub_path.display(),
            source.display(),
            target.display()
        ),
        None => format!("mounting {} on {}", source.display(), target.display()),
    };
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = match sub_path {
        None => {
            open_tree(CWD, source, clone | OpenTreeFlags::AT_RECURSIVE).map_err(failed(&what))?
        }
        Some(sub_path) => {
            let inside = inside(source, sub_path).map_err(HelperError::setup(&what))?;
            open_tree(
                &inside,
                c"",
                clone | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE,
            )
            .map_err(failed(&what))?
        }
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree).map_err(failed(&what))?.st_mode);
    let flags_missing = match mount_attributes::set(&tree, flags) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => true,
        Err(error) => return Err(HelperError::setup(&what)(error)),
    };
    Ok(DetachedMount {
        tree,
        target: target.to_owned(),
        kind: if kind == FileType::Directory {
            TargetKind::Directory
        } else {
            TargetKind::File
        },
        flags,
        flags_missing,
    })
}

/// Opens `sub_path` below `volume`, whatever links a container may have put there; makes missing directories with the
/// volume's own mode and group, as a kubelet does, so that whoever may write the volume may write them.
fn inside(volume: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(
        volume,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| {
        rustix::fs::openat2(
            &root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    };
    match open(sub_path) {
        Ok(found) => return Ok(found),
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let of_volume = rustix::fs::fstat(&root)?;
    let mode = Mode::from_raw_mode(of_volume.st_mode & 0o7777);
    let mut reached = PathBuf::from(".");
    for part in sub_path.components() {
        let std::path::Component::Normal(name) = part else {
            continue;
        };
        let parent = open(&reached)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => {
                let made = rustix::fs::openat(
                    &parent,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let group = rustix::fs::Gid::from_raw(of_volume.st_gid);
                rustix::fs::fchown(&made, None, Some(group))?;
                rustix::fs::fchmod(&made, mode)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        reached.push(name);
    }
    Ok(open(&reached)?)
}

/// A mount point of the right kind; everything below `/` belongs to the container by now.
pub(super) fn mount_point(target: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
    mount_target::open(&container_root()?, target, kind)
}

/// Adds flags to a mount, for kernels before 5.12; by then `/proc` is the container's own and nothing lies over it. It
/// keeps those of the file system it comes from: a remount must repeat those that are locked.
fn remount(mounted: impl AsFd, flags: MountFlags) -> rustix::io::Result<()> {
    let old = rustix::fs::fstatvfs(&mounted)?.f_flag;
    let mut flags = flags | MountFlags::BIND;
    for (was, keep) in [
        (rustix::fs::StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (rustix::fs::StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if old.contains(was) {
            flags |= keep;
        }
    }
    mount_remount(descriptor_path(&mounted), flags, c"")
}

pub(super) fn map_ids(
    tree: &OwnedFd,
    user_namespace: &OwnedFd,
    source: &Path,
) -> Result<(), HelperError> {
    mount_attributes::map_ids(tree, user_namespace).map_err(HelperError::setup(format_args!(
        "showing {} with the ids of a user namespace (hostUsers: false needs a kernel and a file system with idmapped mounts)",
        source.display()
    )))
}
