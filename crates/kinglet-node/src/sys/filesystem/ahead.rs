//! What a container sees of the kernel, built while its process is parked: most containers get the same.
//!
//! `/proc` with its masks, `/dev` with its nodes, and the tree of control groups are built on a stage in the parked
//! process's own mounts, and kept as detached trees; a start only attaches them. A container that is to see more (a
//! privileged one, `procMount: Unmasked`) or that shares the host's ipc has its own built at the start.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, open_tree, unmount};

use super::detached::{DetachedMount, pick_up};
use super::kernel::{self, CGROUPS, directory};
use super::{QUIET, device_nodes, failed};
use crate::sys::container::{HelperError, container_root};
use crate::sys::masks::{self, Nothing};
use crate::sys::new_mount::{self, place_on};
use crate::wire::Isolation;

/// Where it is built: a directory that every machine has.
const STAGE: &str = "/sys";
/// Three directories.
const STAGE_OPTIONS: &std::ffi::CStr = c"mode=700,size=4k,nr_inodes=8";

/// Trees that are ready to be attached.
pub(crate) struct Ahead {
    proc: OwnedFd,
    dev: OwnedFd,
    cgroups: Option<OwnedFd>,
}

impl Ahead {
    /// Builds them in the namespaces of the container. `cgroups` are the groups and where the container sees them.
    pub(crate) fn build(cgroups: &[(PathBuf, PathBuf)]) -> Result<Self, HelperError> {
        let _ = rustix::process::umask(Mode::empty());
        let cgroups = cgroups
            .iter()
            .map(|(group, at)| pick_up(group, None, at, QUIET | MountFlags::RDONLY))
            .collect::<Result<Vec<_>, _>>()?;
        let stage = Path::new(STAGE);
        mount("tmpfs", stage, "tmpfs", QUIET, STAGE_OPTIONS)
            .map_err(failed("mounting a stage for what the kernel shows"))?;
        let built = build_on(stage, &cgroups);
        // What it hides can be a volume's source.
        unmount(stage, UnmountFlags::DETACH).map_err(failed("taking the stage away"))?;
        built
    }

    /// Whether a container of this kind sees what was built.
    pub(crate) fn fits(isolation: &Isolation) -> bool {
        !isolation.privileged && !isolation.unmasked_proc && !isolation.host_ipc
    }

    /// Attaches everything to the root, which is `/` by now.
    pub(super) fn attach(&self, isolation: &Isolation) -> Result<(), HelperError> {
        let root = container_root().map_err(HelperError::setup("opening /"))?;
        kernel::attach_tree(&root, &self.proc, "/proc")?;
        kernel::attach_tree(&root, &self.dev, "/dev")?;
        for (kind, target, flags, options) in kernel::kernel_table(isolation) {
            // Those that show the namespaces of the pod, which nobody knew when the rest was built.
            if matches!(kind, "mqueue" | "sysfs") {
                kernel::mount_kernel(&root, kind, target, flags, options)?;
            }
        }
        if let Some(cgroups) = &self.cgroups {
            kernel::attach_tree(&root, cgroups, CGROUPS)?;
        }
        masks::apply_to_sys(&root)
    }
}

fn build_on(stage: &Path, cgroups: &[DetachedMount]) -> Result<Ahead, HelperError> {
    let [proc, dev, groups] = ["proc", "dev", "cgroup"].map(|name| stage.join(name));
    for place in [&proc, &dev, &groups] {
        DirBuilder::new()
            .mode(0o755)
            .create(place)
            .map_err(HelperError::setup("making a stage"))?;
    }
    for (kind, target, flags, options) in kernel::kernel_table(&Isolation::default()) {
        let place = match target {
            "/proc" => proc.clone(),
            "/dev" => dev.clone(),
            "/dev/pts" | "/dev/shm" | "/dev/mqueue" => {
                let place = stage.join(target.trim_start_matches('/'));
                let made = DirBuilder::new().mode(0o755).create(&place);
                made.map_err(HelperError::setup(format_args!("making {target}")))?;
                if kind == "mqueue" {
                    continue;
                }
                place
            }
            _ => continue,
        };
        let tree = new_mount::detached(kind, kernel::source_of(kind, target), flags, options);
        tree.and_then(|tree| place_on(&tree, directory(&place)?))
            .map_err(failed(format_args!("mounting {target}")))?;
    }
    device_nodes::make_devices(&dev, &[])?;
    let root = directory(stage).map_err(failed("opening the stage"))?;
    masks::apply_to_proc(&root, &Nothing::pick_up(&root)?)?;
    let clone = |place: &Path| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        open_tree(CWD, place, flags).map_err(failed("picking up what was built ahead"))
    };
    let cgroups = if cgroups.is_empty() {
        None
    } else {
        kernel::show_cgroups(&groups, cgroups)?;
        Some(clone(&groups)?)
    };
    Ok(Ahead {
        proc: clone(&proc)?,
        dev: clone(&dev)?,
        cgroups,
    })
}
