//! The image's layers as one file system, and the change to it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};

use super::detached::map_ids;
use super::{ROOTFS, failed};
use crate::sys::container::HelperError;
use crate::wire::Root;

/// Linux takes one page of mount options.
const OPTION_BYTES_MAX: usize = 4000;

/// The image's layers with the ids of a user namespace, below a layer that belongs to its root.
pub(super) fn mount_mapped_root(
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

pub(super) fn mount_root(root: &Root) -> Result<(), HelperError> {
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
pub(super) fn change_root() -> Result<(), HelperError> {
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
