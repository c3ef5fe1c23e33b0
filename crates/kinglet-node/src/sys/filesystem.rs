//! The container's view of the file system: overlay, kernel file systems, devices, volumes.
//!
//! Everything that comes from the host is picked up as a detached mount *before* the root changes and attached *after*
//! it, so that symbolic links in an image can never lead a mount outside of the container.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};

use crate::sys::container::{HelperError, descriptor_path};
use crate::sys::mount_target::{self, TargetKind};
use crate::wire::{Mount, Root, Start};

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const HIDDEN: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Linux takes one page of mount options.
const OPTION_BYTES_MAX: usize = 4000;

/// A mount that floats until it has a place.
struct Floating {
    tree: OwnedFd,
    target: PathBuf,
    kind: TargetKind,
    /// Flags that are added to those of the file system it comes from.
    flags: MountFlags,
}

/// What volumes are mounted with: no program of a volume changes its user, no device node in it works.
const VOLUME_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Builds the root of `start` and makes it `/`.
pub(crate) fn enter(start: &Start) -> Result<(), HelperError> {
    let devices = DEVICES
        .iter()
        .map(|name| {
            pick_up(
                Path::new("/dev").join(name).as_path(),
                None,
                &Path::new("/dev").join(name),
                MountFlags::empty(),
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    let cgroups = start
        .cgroups
        .iter()
        .map(|(source, target)| pick_up(source, None, target, MountFlags::RDONLY))
        .collect::<Result<Vec<_>, _>>()?;
    let mut volumes = Vec::with_capacity(start.mounts.len());
    for one in &start.mounts {
        let floating = match one {
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
                Some(pick_up(source, sub_path.as_deref(), target, flags)?)
            }
            Mount::Memory { .. } | Mount::ImageVolume { .. } => None,
        };
        volumes.push((one, floating));
    }
    become_root(&start.root)?;
    kernel_file_systems()?;
    for device in &devices {
        attach(device)?;
    }
    let links = DEVICE_LINKS
        .iter()
        .try_for_each(|(name, to)| symlink(to, Path::new("/dev").join(name)));
    links.map_err(HelperError::setup("linking /dev"))?;
    if !cgroups.is_empty() {
        show_cgroups(&cgroups)?;
    }
    for (one, floating) in &volumes {
        match (one, floating) {
            (_, Some(floating)) => attach(floating)?,
            (Mount::Memory { target, bytes_max }, None) => memory(target, *bytes_max)?,
            (Mount::ImageVolume { target }, None) => image_volume(target, start.read_only_root)?,
            (Mount::Bind { .. }, None) => {}
        }
    }
    protect()?;
    make_tmp();
    if start.read_only_root {
        mount_remount(
            "/",
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV,
            c"",
        )
        .map_err(failed("making / read-only"))?;
    }
    Ok(())
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(rustix::io::Errno) -> HelperError {
    let what = what.to_string();
    move |error| HelperError::setup(what)(error.into())
}

fn pick_up(
    source: &Path,
    sub_path: Option<&Path>,
    target: &Path,
    flags: MountFlags,
) -> Result<Floating, HelperError> {
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
    Ok(Floating {
        tree,
        target: target.to_owned(),
        kind: if kind == FileType::Directory {
            TargetKind::Directory
        } else {
            TargetKind::File
        },
        flags,
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

fn become_root(root: &Root) -> Result<(), HelperError> {
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
    )))?;
    std::env::set_current_dir(&rootfs).map_err(HelperError::setup("entering the root"))?;
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

fn kernel_file_systems() -> Result<(), HelperError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let table: [(&str, &str, MountFlags, Option<&std::ffi::CStr>); 6] = [
        ("proc", "/proc", quiet, None),
        (
            "tmpfs",
            "/dev",
            MountFlags::NOSUID.union(MountFlags::NODEV),
            Some(c"size=65536k,mode=755"),
        ),
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ),
        ("mqueue", "/dev/mqueue", quiet, None),
        ("tmpfs", "/dev/shm", quiet, Some(c"mode=1777,size=65536k")),
        ("sysfs", "/sys", quiet | MountFlags::RDONLY, None),
    ];
    for (kind, target, flags, options) in table {
        let what = format!("making {target}");
        // A link here would let a program choose later what lies behind our masks (runc refuses it, too).
        if fs::symlink_metadata(target).is_ok_and(|found| !found.is_dir()) {
            return Err(HelperError::setup(&what)(io::Error::other(
                "the image has something else than a directory there",
            )));
        }
        mount_point(Path::new(target), TargetKind::Directory).map_err(HelperError::setup(&what))?;
        let source = if target == "/dev/shm" { "shm" } else { kind };
        match mount(source, target, kind, flags, options) {
            Ok(()) => {}
            // Not every kernel has POSIX message queues.
            Err(rustix::io::Errno::NODEV) if kind == "mqueue" => {}
            Err(error) => return Err(failed(format_args!("mounting {target}"))(error)),
        }
    }
    Ok(())
}

fn attach(floating: &Floating) -> Result<(), HelperError> {
    let target = &floating.target;
    let what = format!("mounting on {}", target.display());
    let place = mount_point(target, floating.kind).map_err(HelperError::setup(&what))?;
    place_on(&floating.tree, &place).map_err(failed(&what))?;
    if !floating.flags.is_empty() {
        add_flags(&floating.tree, floating.flags).map_err(failed(&what))?;
    }
    Ok(())
}

/// A mount point of the right kind below `/`, which is the container's root by now; made where it is missing.
pub(crate) fn mount_point(target: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    mount_target::open(&root, target, kind)
}

fn place_on(tree: &OwnedFd, place: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", place, c"", flags)
}

/// A bind mount keeps the flags of the file system it comes from, and a remount must repeat those that are locked.
fn add_flags(mounted: &OwnedFd, added: MountFlags) -> rustix::io::Result<()> {
    let old = rustix::fs::fstatvfs(mounted)?.f_flag;
    let mut flags = MountFlags::BIND | added;
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
    mount_remount(descriptor_path(mounted), flags, c"")
}

/// A directory that the image declares as a volume. It is part of the container's own writable layer, with the image's
/// content and ownership; below a read-only root it gets a mount of its own that stays writable.
fn image_volume(target: &Path, read_only_root: bool) -> Result<(), HelperError> {
    let what = format!("making the image's volume {}", target.display());
    let place = mount_point(target, TargetKind::Directory).map_err(HelperError::setup(&what))?;
    if !read_only_root {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&place, c"", flags).map_err(failed(&what))?;
    place_on(&tree, &place).map_err(failed(&what))
}

fn show_cgroups(cgroups: &[Floating]) -> Result<(), HelperError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let whole = Path::new("/sys/fs/cgroup");
    if let [one] = cgroups
        && one.target == whole
    {
        return attach(one);
    }
    mount("tmpfs", whole, "tmpfs", quiet, c"mode=755")
        .map_err(failed("mounting /sys/fs/cgroup"))?;
    cgroups.iter().try_for_each(attach)?;
    mount_remount(whole, quiet | MountFlags::RDONLY, c"mode=755")
        .map_err(failed("protecting /sys/fs/cgroup"))
}

fn memory(target: &Path, bytes_max: Option<u64>) -> Result<(), HelperError> {
    let what = format!("mounting memory on {}", target.display());
    let place = mount_point(target, TargetKind::Directory).map_err(HelperError::setup(&what))?;
    let options = bytes_max.map_or_else(
        || "mode=1777".to_owned(),
        |bytes| format!("mode=1777,size={bytes}"),
    );
    let options = CString::new(options).expect("digits and letters");
    mount(
        "tmpfs",
        descriptor_path(&place),
        "tmpfs",
        VOLUME_FLAGS,
        options.as_c_str(),
    )
    .map_err(failed(&what))
}

fn protect() -> Result<(), HelperError> {
    for path in READ_ONLY.iter().map(Path::new).filter(|path| path.exists()) {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let what = format!("protecting {}", path.display());
        let tree = open_tree(CWD, path, flags).map_err(failed(&what))?;
        move_mount(
            &tree,
            c"",
            CWD,
            path,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(failed(&what))?;
        add_flags(&tree, MountFlags::RDONLY).map_err(failed(&what))?;
    }
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("opening /dev/null"))?;
    for path in HIDDEN {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let what = format!("hiding {path}");
        if found.is_dir() {
            mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, c"size=0").map_err(failed(&what))?;
        } else {
            rustix::mount::mount_bind(descriptor_path(&null), path).map_err(failed(&what))?;
        }
    }
    Ok(())
}

/// The runtime contract promises a `/tmp` for everyone; images from scratch have none.
fn make_tmp() {
    let tmp = Path::new("/tmp");
    if !tmp.exists() && fs::create_dir(tmp).is_ok() {
        let _ = fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777));
    }
}
