//! The container's view of the file system: overlay, kernel file systems, devices, volumes.
//!
//! Everything that comes from the host is picked up as a detached mount *before* the root changes and attached *after*
//! it, below a path that [`mount_target`] finds: symbolic links in an image or a volume can never lead a mount outside of the
//! container. Devices are nodes of the container's own; nothing in its `/dev` is shared with the host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};

use crate::sys::container::{HelperError, container_root, descriptor_path};
use crate::sys::masks::{self, Nothing};
use crate::sys::mount_target::{self, TargetKind};
use crate::sys::new_mount::{self, place_on};
use crate::sys::{devices, mount_attributes};
use crate::wire::{Isolation, Mount, Root, Start};

const DEVICE_LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Where the root is mounted, in the container's own directory.
const ROOTFS: &str = "rootfs";
/// Linux takes one page of mount options.
const OPTION_BYTES_MAX: usize = 4000;
/// Devices of the host that a privileged container gets; a machine has some hundred.
const HOST_DEVICES_MAX: usize = 4096;
/// Nothing of these kinds is wanted from a mounted file system.
pub(crate) const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What volumes are mounted with: no program of a volume changes its user, no device node in it works.
const VOLUME_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// A mount that has no place yet.
struct DetachedMount {
    tree: OwnedFd,
    target: PathBuf,
    kind: TargetKind,
    flags: MountFlags,
    /// The kernel was too old to set the flags before the mount is attached.
    flags_missing: bool,
}

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
pub(crate) fn enter(start: &Start) -> Result<(), HelperError> {
    let picked_up = pick_up_all(start, None)?;
    mount_root(&start.root)?;
    change_root()?;
    fill(start, &picked_up)
}

/// The host's part for a container with a user namespace of its own, done as the host's root: everything from the host is
/// shown with the ids of the namespace, and the root is mounted.
pub(crate) fn prepare_mapped(
    start: &Start,
    user_namespace: &OwnedFd,
    first_id: u32,
) -> Result<PickedUp, HelperError> {
    let mut picked_up = pick_up_all(start, Some(user_namespace))?;
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

fn pick_up_all(start: &Start, user_namespace: Option<&OwnedFd>) -> Result<PickedUp, HelperError> {
    let _ = rustix::process::umask(Mode::empty());
    let cgroups = start
        .cgroups
        .iter()
        .map(|(source, target)| {
            let writable = start.isolation.privileged;
            let flags = if writable {
                QUIET
            } else {
                QUIET | MountFlags::RDONLY
            };
            pick_up(source, None, target, flags)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let volumes = start
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
        .collect::<Result<Vec<_>, HelperError>>()?;
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

fn map_ids(tree: &OwnedFd, user_namespace: &OwnedFd, source: &Path) -> Result<(), HelperError> {
    mount_attributes::map_ids(tree, user_namespace).map_err(HelperError::setup(format_args!(
        "showing {} with the ids of a user namespace (hostUsers: false needs a kernel and a file system with idmapped mounts)",
        source.display()
    )))
}

/// Puts everything into the root, which is `/` by now.
fn fill(start: &Start, picked_up: &PickedUp) -> Result<(), HelperError> {
    kernel_file_systems(&start.isolation, picked_up)?;
    make_devices(&picked_up.host_devices)?;
    let nothing = Nothing::pick_up()?;
    if !picked_up.cgroups.is_empty() {
        show_cgroups(&picked_up.cgroups)?;
    }
    for (one, detached) in start.mounts.iter().zip(&picked_up.volumes) {
        match (one, detached) {
            (_, Some(detached)) => attach_volume(detached)?,
            (Mount::Memory { target, bytes_max }, None) => memory(target, *bytes_max)?,
            (Mount::ImageVolume { target }, None) => image_volume(target, start.read_only_root)?,
            (Mount::Bind { .. }, None) => {}
        }
    }
    if !start.isolation.privileged && !start.isolation.unmasked_proc {
        masks::apply(&nothing)?;
    }
    make_tmp();
    if start.read_only_root {
        // As runc does: a missing one is made while the root can still be written.
        super::container::working_directory(&start.process)?;
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

fn pick_up(
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

/// The image's layers with the ids of a user namespace, below a layer that belongs to its root.
fn mount_mapped_root(
    root: &Root,
    user_namespace: &OwnedFd,
    first_id: u32,
) -> Result<(), HelperError> {
    let mapped = root.directory.join("mapped");
    let owner = Some(first_id);
    for part in ["upper", "work"] {
        std::os::unix::fs::chown(root.directory.join(part), owner, owner)
            .map_err(HelperError::setup("giving the root to the user namespace"))?;
    }
    let mut layers = Vec::new();
    for (index, layer) in root.layers.iter().enumerate() {
        let at = mapped.join(index.to_string());
        fs::create_dir_all(&at).map_err(HelperError::setup("making a place for a layer"))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let what = format!("mounting layer {}", layer.display());
        let tree = open_tree(CWD, layer, clone).map_err(failed(&what))?;
        map_ids(&tree, user_namespace, layer)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, c"", CWD, &at, flags).map_err(failed(&what))?;
        layers.push(PathBuf::from("mapped").join(index.to_string()));
    }
    mount_root(&Root {
        directory: root.directory.clone(),
        layers,
    })
}

fn mount_root(root: &Root) -> Result<(), HelperError> {
    let directory = &root.directory;
    std::env::set_current_dir(directory).map_err(HelperError::setup(format_args!(
        "entering {}",
        directory.display()
    )))?;
    let options = overlay_options(root).map_err(HelperError::setup("linking layers"))?;
    let rootfs = directory.join("rootfs");
    let mounted =
        mount_overlay(&rootfs, &[&options[..], b",volatile"].concat()).or_else(
            |error| match error {
                // Kernels before 5.10 with backports, and upper layers on rare file systems.
                rustix::io::Errno::INVAL => mount_overlay(&rootfs, &options),
                other => Err(other),
            },
        );
    mounted.map_err(failed(format_args!(
        "mounting the image on {}",
        rootfs.display()
    )))
}

/// [`mount_root`] has entered the directory that holds it.
fn change_root() -> Result<(), HelperError> {
    std::env::set_current_dir(ROOTFS).map_err(HelperError::setup("entering the root"))?;
    // The old root is stacked on the new one's directory and let go from there: no extra directory is needed.
    rustix::process::pivot_root(".", ".").map_err(failed("changing the root"))?;
    mount_change(
        ".",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(failed("making the old root private"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("letting the old root go"))?;
    std::env::set_current_dir("/").map_err(HelperError::setup("entering /"))
}

fn mount_overlay(rootfs: &Path, options: &[u8]) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    mount(
        "overlay",
        rootfs,
        "overlay",
        MountFlags::NODEV,
        options.as_c_str(),
    )
}

fn overlay_options(root: &Root) -> io::Result<Vec<u8>> {
    let escape = |path: &Path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|byte| {
                if b"\\:,".contains(byte) {
                    vec![b'\\', *byte]
                } else {
                    vec![*byte]
                }
            })
            .collect::<Vec<u8>>()
    };
    if root.layers.is_empty() {
        // An image without layers: everything comes from volumes.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create("empty")?;
        return Ok(b"lowerdir=empty,upperdir=upper,workdir=work".to_vec());
    }
    let mut layers = root
        .layers
        .iter()
        .map(|layer| escape(layer))
        .collect::<Vec<_>>()
        .join(&b':');
    if layers.len() > OPTION_BYTES_MAX {
        fs::DirBuilder::new().recursive(true).create("l")?;
        for (index, layer) in root.layers.iter().enumerate() {
            symlink(layer, format!("l/{index}"))?;
        }
        layers = (0..root.layers.len())
            .map(|index| format!("l/{index}").into_bytes())
            .collect::<Vec<_>>()
            .join(&b':');
    }
    Ok([
        &b"lowerdir="[..],
        &layers[..],
        b",upperdir=upper,workdir=work",
    ]
    .concat())
}

type KernelMount = (&'static str, &'static str, MountFlags, &'static str);

fn kernel_table(isolation: &Isolation) -> [KernelMount; 6] {
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

fn kernel_file_systems(isolation: &Isolation, picked_up: &PickedUp) -> Result<(), HelperError> {
    let root = container_root().map_err(HelperError::setup("opening /"))?;
    let is_mapped = picked_up.devices.is_some();
    for (kind, target, flags, options) in kernel_table(isolation) {
        match (target, &picked_up.devices, &picked_up.shared_memory) {
            ("/proc" | "/sys", ..) if is_mapped => {}
            ("/dev", Some(devices), _) => {
                let what = "mounting /dev";
                own_directory(&root, target)?;
                let place = mount_point(Path::new(target), TargetKind::Directory)
                    .map_err(HelperError::setup(what))?;
                place_on(devices, &place).map_err(failed(what))?;
            }
            ("/dev/shm", _, Some(shared)) => attach(shared)?,
            _ => mount_kernel(&root, kind, target, flags, options)?,
        }
    }
    Ok(())
}

/// A link here would let a program choose later what lies behind our masks (runc refuses it, too).
fn own_directory(root: &OwnedFd, target: &str) -> Result<(), HelperError> {
    let name = target.trim_start_matches('/');
    let found = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW);
    if found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory) {
        return Err(HelperError::setup(format_args!("making {target}"))(
            io::Error::other("the image has something else than a directory there"),
        ));
    }
    Ok(())
}

fn mount_kernel(
    root: &OwnedFd,
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), HelperError> {
    own_directory(root, target)?;
    let place = mount_target::open(root, Path::new(target), TargetKind::Directory)
        .map_err(HelperError::setup(format_args!("making {target}")))?;
    let source = if target == "/dev/shm" { "shm" } else { kind };
    let mounted =
        new_mount::detached(kind, source, flags, options).and_then(|tree| place_on(&tree, &place));
    match mounted {
        Ok(()) => Ok(()),
        // Not every kernel has POSIX message queues.
        Err(rustix::io::Errno::NODEV) if kind == "mqueue" => Ok(()),
        Err(error) => Err(failed(format_args!("mounting {target}"))(error)),
    }
}

/// A `/dev` with its nodes that is not mounted yet: the root of a user namespace may not make nodes.
fn devices_ahead(of_host: &[HostDevice], first_id: u32) -> io::Result<OwnedFd> {
    let options = format!("size=65536k,mode=755,uid={first_id},gid={first_id}");
    let tree = new_mount::detached("tmpfs", "tmpfs", MountFlags::NOSUID, &options)?;
    let (user, group) = (
        Some(rustix::fs::Uid::from_raw(first_id)),
        Some(rustix::fs::Gid::from_raw(first_id)),
    );
    let node = |path: &Path, kind: FileType, mode: u32, number: u64| -> io::Result<()> {
        rustix::fs::mknodat(&tree, path, kind, Mode::from_raw_mode(mode), number)?;
        rustix::fs::chownat(&tree, path, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    };
    for (name, major, minor) in devices::NODES {
        let number = rustix::fs::makedev(major, minor);
        node(Path::new(name), FileType::CharacterDevice, 0o666, number)?;
    }
    for device in of_host {
        // Those in directories of their own are left out: there are no users of a namespace for them.
        if let Ok(name) = device.path.strip_prefix("/dev")
            && name.components().count() == 1
            && !devices::NODES
                .iter()
                .any(|(known, ..)| name == Path::new(known))
        {
            node(name, device.kind, device.mode, device.number)?;
        }
    }
    Ok(tree)
}

/// A device of the host.
struct HostDevice {
    path: PathBuf,
    kind: FileType,
    mode: u32,
    number: u64,
}

/// The devices of the host, for privileged containers.
fn host_devices() -> Vec<HostDevice> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
                continue;
            };
            let own = ["pts", "shm", "mqueue", "fd"]
                .iter()
                .any(|name| entry.file_name() == *name);
            if kind.is_dir() && !own {
                directories.push(path);
            } else if let Ok(metadata) = entry.metadata()
                && (kind.is_block_device() || kind.is_char_device())
            {
                found.push(HostDevice {
                    path,
                    kind: FileType::from_raw_mode(metadata.mode()),
                    mode: metadata.mode() & 0o7777,
                    number: metadata.rdev(),
                });
            }
            if found.len() + directories.len() >= HOST_DEVICES_MAX {
                return found;
            }
        }
    }
    found
}

fn make_devices(of_host: &[HostDevice]) -> Result<(), HelperError> {
    let node = |path: &Path, kind: FileType, mode: u32, number: u64| match rustix::fs::mknodat(
        CWD,
        path,
        kind,
        Mode::from_raw_mode(mode),
        number,
    ) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(format_args!("making {}", path.display()))(error)),
    };
    for (name, major, minor) in devices::NODES {
        let number = rustix::fs::makedev(major, minor);
        node(
            &Path::new("/dev").join(name),
            FileType::CharacterDevice,
            0o666,
            number,
        )?;
    }
    for device in of_host {
        if let Some(parent) = device.path.parent() {
            fs::create_dir_all(parent).map_err(HelperError::setup("making a directory in /dev"))?;
        }
        node(&device.path, device.kind, device.mode, device.number)?;
    }
    let links = DEVICE_LINKS.iter().try_for_each(|(name, to)| {
        match symlink(to, Path::new("/dev").join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    });
    links.map_err(HelperError::setup("linking /dev"))
}

fn attach(detached: &DetachedMount) -> Result<(), HelperError> {
    attach_where(detached, |_| Ok(()))
}

/// A volume's place is the Pod's or the image's to choose, within limits.
fn attach_volume(detached: &DetachedMount) -> Result<(), HelperError> {
    attach_where(detached, |place| {
        masks::check_place(place, &detached.target)
    })
}

fn attach_where(
    detached: &DetachedMount,
    check: impl FnOnce(&OwnedFd) -> Result<(), HelperError>,
) -> Result<(), HelperError> {
    let target = &detached.target;
    let what = format!("mounting on {}", target.display());
    let place = mount_point(target, detached.kind).map_err(HelperError::setup(&what))?;
    check(&place)?;
    place_on(&detached.tree, &place).map_err(failed(&what))?;
    if detached.flags_missing && !detached.flags.is_empty() {
        remount(&detached.tree, detached.flags).map_err(failed(&what))?;
    }
    Ok(())
}

/// A mount point of the right kind; everything below `/` belongs to the container by now.
pub(crate) fn mount_point(target: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
    mount_target::open(&container_root()?, target, kind)
}

/// Adds flags to a mount, for kernels before 5.12; by then `/proc` is the container's own and nothing lies over it. It keeps those of the file system it comes from: a remount must repeat those that are locked.
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

/// Version 2 is one mount; version 1 is a directory of mounts, with a link for each controller of a joint one.
fn show_cgroups(cgroups: &[DetachedMount]) -> Result<(), HelperError> {
    let whole = Path::new("/sys/fs/cgroup");
    if let [one] = cgroups
        && one.target == whole
    {
        return attach(one);
    }
    mount("tmpfs", whole, "tmpfs", QUIET, c"mode=755")
        .map_err(failed("mounting /sys/fs/cgroup"))?;
    for one in cgroups {
        attach(one)?;
        let Some(view) = one.target.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        for controller in view.split(',').filter(|controller| *controller != view) {
            symlink(view, whole.join(controller))
                .map_err(HelperError::setup("linking /sys/fs/cgroup"))?;
        }
    }
    mount_remount(whole, QUIET | MountFlags::RDONLY, c"mode=755")
        .map_err(failed("protecting /sys/fs/cgroup"))
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
