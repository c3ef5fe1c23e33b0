//! The container's view of the file system: overlay, kernel file systems, devices, volumes.
//!
//! Everything that comes from the host is picked up as a detached mount *before* the root changes and attached *after*
//! it, below a path that [`mount_target`] finds: symbolic links in an image or a volume can never lead a mount outside of the
//! container. Devices are nodes of the container's own; nothing in its `/dev` is shared with the host.

mod ahead;
mod detached;
mod device_nodes;
mod kernel;
mod root;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount_remount};

pub(crate) use self::ahead::Ahead;
use self::detached::{DetachedMount, map_ids, mount_point, pick_up};
use self::device_nodes::{HostDevice, devices_ahead, host_devices, make_devices};
use self::kernel::{CGROUPS, kernel_file_systems, kernel_table, mount_kernel, show_cgroups};
use self::root::{change_root, mount_mapped_root, mount_root};
use crate::sys::container::{HelperError, container_root};
use crate::sys::masks::{self, Nothing};
use crate::sys::mount_target::TargetKind;
use crate::sys::new_mount::{self, place_on};
use crate::wire::{Mount, Start};

/// Where the root is mounted, in the container's own directory.
const ROOTFS: &str = "rootfs";
/// Nothing of these kinds is wanted from a mounted file system.
pub(crate) const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What volumes are mounted with: no program of a volume changes its user, no device node in it works.
const VOLUME_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What was picked up from the host before the root changes.
pub(crate) struct PickedUp {
    cgroups: Vec<DetachedMount>,
    /// In the order of the mounts of the start.
    volumes: Vec<Option<DetachedMount>>,
    host_devices: Vec<HostDevice>,
    shared_memory: Option<DetachedMount>,
    /// Where the container's root may not make devices: they are made ahead.
    devices: Option<OwnedFd>,
}

/// Builds the root of `start` and makes it `/`.
pub(crate) fn enter(start: &Start, ahead: Option<&Ahead>) -> Result<(), HelperError> {
    let picked_up = pick_up_all(start, None, ahead.is_some())?;
    mount_root(&start.root)?;
    change_root()?;
    match ahead {
        Some(ahead) => {
            ahead.attach(&start.isolation)?;
            finish(start, &picked_up)
        }
        None => fill(start, &picked_up),
    }
}

/// The host's part for a container with a user namespace of its own, done as the host's root: everything from the host is
/// shown with the ids of the namespace, and the root is mounted.
pub(crate) fn prepare_mapped(
    start: &Start,
    user_namespace: &OwnedFd,
    first_id: u32,
) -> Result<PickedUp, HelperError> {
    let mut picked_up = pick_up_all(start, Some(user_namespace), false)?;
    picked_up.devices = Some(
        devices_ahead(&picked_up.host_devices, first_id)
            .map_err(HelperError::setup("making devices"))?,
    );
    mount_mapped_root(&start.root, user_namespace, first_id)?;
    Ok(picked_up)
}

/// The container's part, done by the first process of its namespaces.
pub(crate) fn enter_mapped(start: &Start, picked_up: &PickedUp) -> Result<(), HelperError> {
    let _ = rustix::process::umask(Mode::empty());
    // Found from the working directory: those above it are closed to everybody but the host's root.
    let rootfs = Path::new(ROOTFS);
    // What was mounted outside of the namespace is locked: a mount of our own can become the root.
    rustix::mount::mount_bind_recursive(rootfs, rootfs)
        .map_err(failed("mounting the root once more"))?;
    // While the host's are still in sight; without them the kernel allows no new ones.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(rootfs, flags, Mode::empty()).map_err(failed("opening the root"))?;
    for (kind, target, flags, options) in kernel_table(&start.isolation) {
        if matches!(kind, "proc" | "sysfs") {
            mount_kernel(&root, kind, target, flags, options)?;
        }
    }
    change_root()?;
    fill(start, picked_up)
}

fn pick_up_all(
    start: &Start,
    user_namespace: Option<&OwnedFd>,
    cgroups_are_ahead: bool,
) -> Result<PickedUp, HelperError> {
    let _ = rustix::process::umask(Mode::empty());
    let cgroups = if cgroups_are_ahead {
        Vec::new()
    } else {
        pick_up_cgroups(start)?
    };
    let volumes = pick_up_volumes(start, user_namespace)?;
    let shared_memory = if start.isolation.host_ipc {
        let path = Path::new("/dev/shm");
        Some(pick_up(path, None, path, QUIET)?)
    } else {
        None
    };
    Ok(PickedUp {
        cgroups,
        volumes,
        host_devices: if start.isolation.privileged {
            host_devices()
        } else {
            Vec::new()
        },
        shared_memory,
        devices: None,
    })
}

fn pick_up_cgroups(start: &Start) -> Result<Vec<DetachedMount>, HelperError> {
    let flags = if start.isolation.privileged {
        QUIET
    } else {
        QUIET | MountFlags::RDONLY
    };
    start
        .cgroups
        .iter()
        .map(|(source, target)| pick_up(source, None, target, flags))
        .collect()
}

/// In the order of the mounts of the start.
fn pick_up_volumes(
    start: &Start,
    user_namespace: Option<&OwnedFd>,
) -> Result<Vec<Option<DetachedMount>>, HelperError> {
    start
        .mounts
        .iter()
        .map(|one| match one {
            Mount::Bind {
                source,
                sub_path,
                target,
                read_only,
                allow_devices,
            } => {
                let mut flags = MountFlags::empty();
                flags.set(MountFlags::RDONLY, *read_only);
                flags.set(VOLUME_FLAGS, !allow_devices);
                let picked_up = pick_up(source, sub_path.as_deref(), target, flags)?;
                if let Some(user_namespace) = user_namespace {
                    map_ids(&picked_up.tree, user_namespace, source)?;
                }
                Ok(Some(picked_up))
            }
            Mount::Memory { .. } | Mount::ImageVolume { .. } => Ok(None),
        })
        .collect()
}

/// Puts everything into the root, which is `/` by now.
fn fill(start: &Start, picked_up: &PickedUp) -> Result<(), HelperError> {
    kernel_file_systems(&start.isolation, picked_up)?;
    make_devices(Path::new("/dev"), &picked_up.host_devices)?;
    let root = container_root().map_err(HelperError::setup("opening /"))?;
    if !picked_up.cgroups.is_empty() {
        show_cgroups(Path::new(CGROUPS), &picked_up.cgroups)?;
    }
    if !start.isolation.privileged && !start.isolation.unmasked_proc {
        let nothing = Nothing::pick_up(&root)?;
        masks::apply_to_proc(&root, &nothing)?;
        masks::apply_to_sys(&root)?;
    }
    finish(start, picked_up)
}

/// What is left when the kernel's file systems are in their places.
fn finish(start: &Start, picked_up: &PickedUp) -> Result<(), HelperError> {
    for (one, detached) in start.mounts.iter().zip(&picked_up.volumes) {
        match (one, detached) {
            (_, Some(detached)) => detached.attach_volume()?,
            (Mount::Memory { target, bytes_max }, None) => memory(target, *bytes_max)?,
            (Mount::ImageVolume { target }, None) => image_volume(target, start.read_only_root)?,
            (Mount::Bind { .. }, None) => {}
        }
    }
    make_tmp();
    if start.read_only_root {
        // As runc does: a missing one is made while the root can still be written.
        super::execute::working_directory(&start.process)?;
        mount_remount(
            "/",
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV,
            c"",
        )
        .map_err(failed("making / read-only"))?;
    }
    Ok(())
}

pub(crate) fn failed(
    what: impl std::fmt::Display,
) -> impl FnOnce(rustix::io::Errno) -> HelperError {
    let what = what.to_string();
    move |error| HelperError::setup(what)(error.into())
}

/// A directory that the image declares as a volume. It is part of the container's own writable layer, with the image's
/// content and ownership; below a read-only root it gets a mount of its own that stays writable.
fn image_volume(target: &Path, read_only_root: bool) -> Result<(), HelperError> {
    let what = format!("making the image's volume {}", target.display());
    let place = mount_point(target, TargetKind::Directory).map_err(HelperError::setup(&what))?;
    masks::check_place(&place, target)?;
    if !read_only_root {
        return Ok(());
    }
    let tree = new_mount::again(&place).map_err(failed(&what))?;
    place_on(&tree, &place).map_err(failed(&what))
}

fn memory(target: &Path, bytes_max: Option<u64>) -> Result<(), HelperError> {
    let what = format!("mounting memory on {}", target.display());
    let place = mount_point(target, TargetKind::Directory).map_err(HelperError::setup(&what))?;
    masks::check_place(&place, target)?;
    let options = bytes_max.map_or_else(
        || "mode=1777".to_owned(),
        |bytes| format!("mode=1777,size={bytes}"),
    );
    let tree = new_mount::detached("tmpfs", "tmpfs", VOLUME_FLAGS, &options);
    place_on(tree.map_err(failed(&what))?, &place).map_err(failed(&what))
}

/// The runtime contract promises a `/tmp` for everyone; images from scratch have none.
fn make_tmp() {
    let tmp = Path::new("/tmp");
    if !tmp.exists() && fs::create_dir(tmp).is_ok() {
        let _ = fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777));
    }
}
