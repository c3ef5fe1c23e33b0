//! Files of the kernel that containers do not see, or cannot write.
//!
//! Always: what is put over a file is Kinglet's own, picked up before any volume is there, and it is put over files of
//! the kernel only: a volume or an image can take the place of neither (CVE-2025-31133 in runc).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::MountFlags;

use crate::sys::container::{HelperError, container_root};
use crate::sys::filesystem::{QUIET, failed};
use crate::sys::mount_attributes;
use crate::sys::new_mount::{self, KernelFiles, kernel_files};

/// What containers do not see (containerd's list, and the interrupts as newer ones hide them).
const MASKED_IN_PROC: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const MASKED_IN_SYS: [&str; 2] = ["/sys/devices/virtual/powercap", "/sys/firmware"];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
const PROCESSORS: &str = "/sys/devices/system/cpu";
/// What a volume may be mounted on below `/proc`, as runc has it: files that only tell, which lxcfs replaces.
const REPLACEABLE: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// What is put over hidden files.
pub(crate) struct Nothing(OwnedFd);

impl Nothing {
    /// Picked up from the container's own `/dev` below `root`, before a volume may lie over it.
    pub(crate) fn pick_up(root: &OwnedFd) -> Result<Self, HelperError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::openat(root, "dev/null", flags, Mode::empty())
            .map_err(failed("opening /dev/null"))?;
        let kind = FileType::from_raw_mode(
            rustix::fs::fstat(&null)
                .map_err(failed("/dev/null"))?
                .st_mode,
        );
        if kind != FileType::CharacterDevice {
            return Err(failed("/dev/null is no device")(rustix::io::Errno::INVAL));
        }
        Ok(Self(null))
    }
}

/// Refuses a mount on a file of the kernel, or over the whole root; `target` is how the Pod or the image names the place.
pub(crate) fn check_place(place: &OwnedFd, target: &Path) -> Result<(), HelperError> {
    let what = format!("mounting on {}", target.display());
    let refused = |why: &'static str| Err(HelperError::setup(&what)(std::io::Error::other(why)));
    let found = kernel_files(place).map_err(HelperError::setup(&what))?;
    let replaceable = REPLACEABLE.iter().any(|path| target == Path::new(path));
    if found == Some(KernelFiles::Proc) && !replaceable {
        return refused("it is inside /proc, where nothing may be mounted");
    }
    let root = container_root().map_err(HelperError::setup(&what))?;
    let number = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    if number(place).map_err(failed(&what))? == number(&root).map_err(failed(&what))? {
        return refused("it is the root of the container, which is the image's");
    }
    Ok(())
}

/// Hides and protects files of `/proc` below `root`, before a volume may lie there.
pub(crate) fn apply_to_proc(root: &OwnedFd, nothing: &Nothing) -> Result<(), HelperError> {
    for path in READ_ONLY {
        let Some((place, _)) = of_kernel(root, Path::new(path)) else {
            continue;
        };
        let what = format!("protecting {path}");
        let tree = new_mount::again(&place).map_err(failed(&what))?;
        mount_attributes::set(&tree, MountFlags::RDONLY).map_err(HelperError::setup(&what))?;
        new_mount::place_on(&tree, &place).map_err(failed(&what))?;
    }
    for path in MASKED_IN_PROC.map(Path::new) {
        let Some((place, kind)) = of_kernel(root, path) else {
            continue;
        };
        if kind == FileType::Directory {
            hide_directory(&place, path)?;
            continue;
        }
        let what = format!("hiding {}", path.display());
        let tree = new_mount::again(&nothing.0).map_err(failed(&what))?;
        new_mount::place_on(tree, &place).map_err(failed(&what))?;
    }
    Ok(())
}

/// Hides directories of `/sys` below `root`, before a volume may lie there.
pub(crate) fn apply_to_sys(root: &OwnedFd) -> Result<(), HelperError> {
    for path in MASKED_IN_SYS
        .iter()
        .map(PathBuf::from)
        .chain(throttling(root))
    {
        if let Some((place, FileType::Directory)) = of_kernel(root, &path) {
            hide_directory(&place, &path)?;
        }
    }
    Ok(())
}

fn hide_directory(place: &OwnedFd, path: &Path) -> Result<(), HelperError> {
    let what = format!("hiding {}", path.display());
    let tree = new_mount::detached("tmpfs", "tmpfs", QUIET | MountFlags::RDONLY, "size=0");
    new_mount::place_on(tree.map_err(failed(&what))?, place).map_err(failed(&what))
}

/// Opens a file if it is there and is the kernel's.
fn of_kernel(root: &OwnedFd, path: &Path) -> Option<(OwnedFd, FileType)> {
    let inside = path.strip_prefix("/").ok()?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root, inside, flags, Mode::empty(), resolve).ok()?;
    kernel_files(&file).ok()??;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    Some((file, kind))
}

/// How hot each processor gets tells what others compute.
fn throttling(root: &OwnedFd) -> Vec<PathBuf> {
    let Some((place, _)) = of_kernel(root, Path::new(PROCESSORS)) else {
        return Vec::new();
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = rustix::fs::openat(&place, ".", flags, Mode::empty())
        .and_then(Dir::new)
        .map(|entries| entries.flatten().collect::<Vec<_>>())
        .unwrap_or_default();
    names
        .iter()
        .map(|entry| {
            Path::new(PROCESSORS)
                .join(entry.file_name().to_string_lossy().as_ref())
                .join("thermal_throttle")
        })
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .collect()
}
