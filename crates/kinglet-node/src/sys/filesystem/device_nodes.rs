//! The container's own device nodes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::mount::MountFlags;

use super::failed;
use crate::sys::container::HelperError;
use crate::sys::{devices, new_mount};

const DEVICE_LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Devices of the host that a privileged container gets; a machine has some hundred.
const HOST_DEVICES_MAX: usize = 4096;

/// A device of the host.
pub(super) struct HostDevice {
    path: PathBuf,
    kind: FileType,
    mode: u32,
    number: u64,
}

/// The devices of the host, for privileged containers.
pub(super) fn host_devices() -> Vec<HostDevice> {
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

/// Makes the nodes and links in `dev`; those of the host keep their paths.
pub(super) fn make_devices(dev: &Path, of_host: &[HostDevice]) -> Result<(), HelperError> {
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
        node(&dev.join(name), FileType::CharacterDevice, 0o666, number)?;
    }
    for device in of_host {
        let path = dev.join(device.path.strip_prefix("/dev").unwrap_or(&device.path));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(HelperError::setup("making a directory in /dev"))?;
        }
        node(&path, device.kind, device.mode, device.number)?;
    }
    let links = DEVICE_LINKS
        .iter()
        .try_for_each(|(name, to)| match symlink(to, dev.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
    links.map_err(HelperError::setup("linking /dev"))
}

/// A `/dev` with its nodes that is not mounted yet: the root of a user namespace may not make nodes.
pub(super) fn devices_ahead(of_host: &[HostDevice], first_id: u32) -> io::Result<OwnedFd> {
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
