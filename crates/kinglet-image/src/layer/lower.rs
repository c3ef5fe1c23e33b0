//! Looks into the layers below the one that is unpacked, as overlayfs would show them together.
//!
//! Always: a lower layer's links are not followed, so that none of them leads to a file of this machine.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// The entry itself (`O_PATH`), from the topmost layer that has it; `None` when none has it or one above hides it.
pub(super) fn find(parents: &[OwnedFd], relative: &Path) -> io::Result<Option<OwnedFd>> {
    for parent in parents {
        match look(parent, relative)? {
            Look::Found(entry) => return Ok(Some(entry)),
            Look::Hidden => return Ok(None),
            Look::Absent => {}
        }
    }
    Ok(None)
}

enum Look {
    Found(OwnedFd),
    /// A whiteout, an opaque directory or something that is no directory hides what lies below.
    Hidden,
    Absent,
}

fn look(parent: &OwnedFd, relative: &Path) -> io::Result<Look> {
    let mut reached = PathBuf::new();
    let mut opaque = false;
    let mut parts = relative.components().peekable();
    while let Some(part) = parts.next() {
        reached.push(part);
        let entry = match open(parent, &reached, OFlags::PATH) {
            Ok(entry) => entry,
            Err(Errno::NOENT) if opaque => return Ok(Look::Hidden),
            Err(Errno::NOENT) => return Ok(Look::Absent),
            Err(error) => return Err(error.into()),
        };
        let meta = rustix::fs::fstat(&entry)?;
        let kind = FileType::from_raw_mode(meta.st_mode);
        if kind == FileType::CharacterDevice && meta.st_rdev == 0 {
            return Ok(Look::Hidden);
        }
        if parts.peek().is_none() {
            return Ok(Look::Found(entry));
        }
        if kind != FileType::Directory {
            return Ok(Look::Hidden);
        }
        opaque |= is_opaque(parent, &reached);
    }
    Ok(Look::Absent)
}

/// Opens below a layer without following a link; one at the end is opened itself (`O_PATH`).
fn open(parent: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let directory = rustix::fs::openat2(
        parent,
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = path.file_name().unwrap_or_default();
    rustix::fs::openat(&directory, name, flags, Mode::empty())
}

fn is_opaque(parent: &OwnedFd, path: &Path) -> bool {
    let Ok(directory) = open(parent, path, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return false;
    };
    let mut value = [0_u8; 1];
    rustix::fs::fgetxattr(&directory, c"trusted.overlay.opaque", &mut value[..])
        .is_ok_and(|length| length == 1 && value == *b"y")
}

/// Copies a file or link of a lower layer with its owner, mode and capabilities; gives the bytes written.
pub(super) fn copy(
    found: &OwnedFd,
    path: &Path,
    bytes_max: u64,
    own_files: bool,
) -> io::Result<u64> {
    let meta = rustix::fs::fstat(found)?;
    let owner = |path: &Path| {
        if own_files {
            std::os::unix::fs::lchown(path, Some(meta.st_uid), Some(meta.st_gid))
        } else {
            Ok(())
        }
    };
    match FileType::from_raw_mode(meta.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(found, "", Vec::new())?;
            rustix::fs::symlink(target.as_c_str(), path)?;
            owner(path)?;
            Ok(0)
        }
        FileType::RegularFile => {
            // Through the descriptor, so that it is the file that was looked at.
            let source = fs::File::open(descriptor_path(found))?;
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)?;
            let copied = io::copy(&mut (&source).take(bytes_max), &mut file)?;
            owner(path)?;
            file.set_permissions(fs::Permissions::from_mode(meta.st_mode & 0o7777))?;
            let mut capabilities = [0_u8; 64];
            if let Ok(length) =
                rustix::fs::fgetxattr(&source, c"security.capability", &mut capabilities[..])
            {
                let _ = rustix::fs::fsetxattr(
                    &file,
                    c"security.capability",
                    &capabilities[..length],
                    XattrFlags::empty(),
                );
            }
            Ok(copied)
        }
        _ => Err(io::Error::other(
            "a hard link to something of a lower layer that is neither a file nor a link",
        )),
    }
}

fn descriptor_path(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
