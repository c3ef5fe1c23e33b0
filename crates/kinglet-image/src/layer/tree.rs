//! Places archive entries below a directory as if that were the root of the file system.
//!
//! Links are followed inside the root only: `lib -> /usr/lib` means the layer's own `usr/lib`. OCI whiteouts become
//! overlayfs ones: `.wh.NAME` a 0/0 character device, `.wh..wh..opq` the `trusted.overlay.opaque` attribute. They hide
//! what lower layers have, never what this layer itself brings, in whichever order the two appear.
//! Nobody else writes below the root meanwhile, so checking a path and then using it is sound.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::lower;

/// Symlinks on the way to one entry, as in the kernel.
const LINKS_MAX: usize = 40;
/// Bytes written for one layer; sparse files can be much larger than their archive.
const BYTES_MAX: u64 = 32 << 30;

/// What unpacking leaves free on the disk, or a twentieth of a small one.
const FREE_BYTES_MIN: u64 = 1 << 30;

pub(super) struct LayerTree {
    root: PathBuf,
    /// The directory used last, as the archive names it and as it is; entries come sorted by directory.
    last: Option<(PathBuf, PathBuf)>,
    bytes_left: u64,
    own_files: bool,
    /// Layers below, topmost first.
    parents: Vec<OwnedFd>,
    needs_parents: bool,
}

impl LayerTree {
    pub(super) fn new(root: PathBuf, parents: &[PathBuf]) -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parents = parents
            .iter()
            .map(|parent| {
                rustix::fs::open(parent, flags, Mode::empty())
                    .map_err(|error| format!("{}: {error}", parent.display()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            root,
            last: None,
            bytes_left: BYTES_MAX,
            own_files: rustix::process::geteuid().is_root(),
            parents,
            needs_parents: false,
        })
    }

    /// Whether the result depends on the layers below, and how many bytes were written.
    pub(super) fn finish(self) -> (bool, u64) {
        (self.needs_parents, BYTES_MAX - self.bytes_left)
    }

    pub(super) fn write_entry(
        &mut self,
        relative: &Path,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), String> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let what = |error: io::Error| format!("entry {}: {error}", shortened(relative));
        let name = relative.file_name().unwrap_or_default().to_owned();
        let parent = self
            .directory(relative.parent().unwrap_or(Path::new("")))
            .map_err(what)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&parent, OsStr::from_bytes(hidden)).map_err(what);
        }
        let path = parent.join(&name);
        match kind {
            EntryType::Directory => self.folder(entry, &path),
            EntryType::Symlink => self.symlink(entry, &path),
            EntryType::Link => self.hard_link(entry, &path),
            EntryType::Fifo => self.special(entry, &path, FileType::Fifo),
            // A whiteout as overlayfs itself writes it.
            EntryType::Char if device(entry) == (0, 0) => {
                self.special(entry, &path, FileType::CharacterDevice)
            }
            // A container gets its own /dev; a device from an image would be a way to the machine.
            EntryType::Char | EntryType::Block => Ok(()),
            // Old archives know a directory by its slash.
            _ if entry.header().as_ustar().is_none() && entry.path_bytes().ends_with(b"/") => {
                self.folder(entry, &path)
            }
            _ => self.file(entry, &path),
        }
        .map_err(what)
    }

    /// The real directory for a path of the archive, made if missing, links resolved below the root.
    fn directory(&mut self, relative: &Path) -> io::Result<PathBuf> {
        if let Some((named, real)) = &self.last
            && named == relative
        {
            return Ok(real.clone());
        }
        let mut pending: VecDeque<OsString> = parts(relative);
        let (mut real, mut links) = (self.root.clone(), 0);
        while let Some(part) = pending.pop_front() {
            if part == ".." {
                if real != self.root {
                    real.pop();
                }
                continue;
            }
            let next = real.join(&part);
            match fs::symlink_metadata(&next) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_implied(&next)?
                }
                Err(error) => return Err(error),
                Ok(meta) if meta.is_symlink() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::other("too many symbolic links on the way"));
                    }
                    let target = fs::read_link(&next)?;
                    if target.is_absolute() {
                        real.clone_from(&self.root);
                    }
                    for part in parts(&target).into_iter().rev() {
                        pending.push_front(part);
                    }
                    continue;
                }
                Ok(meta) if meta.is_dir() => {}
                Ok(meta) if is_whiteout(&meta) => replace_whiteout(&next)?,
                Ok(_) => {
                    return Err(io::Error::other(format!(
                        "{} is not a directory",
                        part.display()
                    )));
                }
            }
            real = next;
        }
        self.last = Some((relative.to_owned(), real.clone()));
        Ok(real)
    }

    /// A directory that the layer does not list. One of a lower layer keeps its mode and owner (a `/tmp` stays open to all).
    fn make_implied(&mut self, path: &Path) -> io::Result<()> {
        self.needs_parents = true;
        make(path)?;
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let Some(found) = lower::find(&self.parents, relative)? else {
            return Ok(());
        };
        let meta = rustix::fs::fstat(&found)?;
        if FileType::from_raw_mode(meta.st_mode) != FileType::Directory {
            return Ok(());
        }
        if self.own_files {
            std::os::unix::fs::chown(path, Some(meta.st_uid), Some(meta.st_gid))?;
        }
        fs::set_permissions(path, Permissions::from_mode(meta.st_mode & 0o7777))
    }

    fn folder(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) if is_whiteout(&meta) => replace_whiteout(path)?,
            Ok(_) => {
                self.clear(path)?;
                make(path)?;
            }
            Err(_) => make(path)?,
        }
        self.own(entry, path)?;
        fs::set_permissions(path, mode(entry))?;
        attributes(entry, path)
    }

    fn file(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        self.clear(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let size = entry.size();
        if size > self.bytes_left {
            return Err(io::Error::other(format!(
                "the layer unpacks to more than {BYTES_MAX} bytes"
            )));
        }
        room_for(&file, size)?;
        let written = io::copy(entry, &mut file)?;
        if written != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the archive ends after {written} of {size} bytes"),
            ));
        }
        self.bytes_left -= written;
        self.own(entry, path)?;
        file.set_permissions(mode(entry))?;
        attributes(entry, path)?;
        let changed =
            entry.header().mtime().ok().and_then(|seconds| {
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
            });
        // Last, as everything above touches the file; a time that the file system cannot store is not worth an error.
        if let Some(changed) = changed {
            let _ = file.set_modified(changed);
        }
        Ok(())
    }

    fn symlink(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let target = link_name(entry)?;
        self.clear(path)?;
        std::os::unix::fs::symlink(target, path)?;
        self.own(entry, path)?;
        attributes(entry, path)
    }

    fn hard_link(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let target = link_name(entry)?;
        let relative = super::inside(&target)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("a hard link to the root"))?;
        let parent = self.directory(relative.parent().unwrap_or(Path::new("")))?;
        let source = parent.join(relative.file_name().unwrap_or_default());
        if source == path {
            return Ok(());
        }
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_dir() => {
                return Err(io::Error::other(format!(
                    "a hard link to the directory {}",
                    target.display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.copy_of_lower(&relative, path, &target);
            }
            Err(error) => return Err(error),
        }
        self.clear(path)?;
        // Never follows a link at its end.
        fs::hard_link(&source, path)
    }

    /// A hard link to a file of a lower layer: a copy of it, as overlayfs would make one to write it.
    fn copy_of_lower(&mut self, relative: &Path, path: &Path, named: &Path) -> io::Result<()> {
        self.needs_parents = true;
        let Some(found) = lower::find(&self.parents, relative)? else {
            return Err(io::Error::other(format!(
                "a hard link to {}, which neither this layer nor one below has",
                named.display()
            )));
        };
        self.clear(path)?;
        let copied = lower::copy(&found, path, self.bytes_left, self.own_files)?;
        self.bytes_left = self.bytes_left.saturating_sub(copied);
        Ok(())
    }

    fn special(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &Path,
        kind: FileType,
    ) -> io::Result<()> {
        self.clear(path)?;
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), 0)?;
        self.own(entry, path)?;
        fs::set_permissions(path, mode(entry))
    }

    /// Takes away what an earlier entry put there.
    fn clear(&mut self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {
                self.last = None;
                kinglet_process::trash::remove_tree(path)
            }
            Ok(meta) => {
                if meta.is_symlink() {
                    self.last = None;
                }
                fs::remove_file(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn own(&self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        if !self.own_files {
            return Ok(());
        }
        let id = |id: io::Result<u64>| {
            u32::try_from(id.unwrap_or(0))
                .map_err(|_| io::Error::other("its owner is not a user or group id"))
        };
        std::os::unix::fs::lchown(
            path,
            Some(id(entry.header().uid())?),
            Some(id(entry.header().gid())?),
        )
    }
}

/// A path for a message: an archive can have names of megabytes.
fn shortened(path: &Path) -> String {
    const LETTERS_MAX: usize = 200;
    let text = path.display().to_string();
    match text.char_indices().nth(LETTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Refuses a file that would leave the disk without what everything else on the machine needs.
fn room_for(file: &fs::File, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let kept = FREE_BYTES_MIN.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20);
    if free < bytes.saturating_add(kept) {
        return Err(io::Error::other(format!(
            "a file of {bytes} bytes does not fit: the disk has {free} bytes left, of which {kept} stay free"
        )));
    }
    Ok(())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// A directory that the archive did not list; the mode does not depend on our umask.
fn make(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn mode(entry: &tar::Entry<'_, impl Read>) -> Permissions {
    Permissions::from_mode(entry.header().mode().unwrap_or(0o644) & 0o7777)
}

fn device(entry: &tar::Entry<'_, impl Read>) -> (u32, u32) {
    let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    (
        number(entry.header().device_major()),
        number(entry.header().device_minor()),
    )
}

fn link_name(entry: &tar::Entry<'_, impl Read>) -> io::Result<PathBuf> {
    match entry.link_name()? {
        Some(name) if !name.as_os_str().is_empty() => Ok(name.into_owned()),
        _ => Err(io::Error::other("a link to nothing")),
    }
}

fn is_whiteout(meta: &fs::Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// A directory comes after the whiteout of its name: it hides the lower one as a whole.
fn replace_whiteout(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    make(path)?;
    opaque(path)
}

fn opaque(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(
        path,
        c"trusted.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )?)
}

fn whiteout(parent: &Path, hidden: &OsStr) -> io::Result<()> {
    if hidden == ".wh..opq" {
        return opaque(parent);
    }
    // Docker's bookkeeping of old (`.wh..wh.plnk`), or nonsense.
    if hidden.is_empty()
        || hidden == "."
        || hidden == ".."
        || hidden.as_bytes().starts_with(b".wh.")
        || hidden.as_bytes().contains(&b'/')
    {
        return Ok(());
    }
    let path = parent.join(hidden);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => opaque(&path),
        // This layer's own file hides the lower one already.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(rustix::fs::mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?),
        Err(error) => Err(error),
    }
}

/// Extended attributes, save those that steer overlayfs itself or belong to the machine's own policy.
fn attributes(entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return Ok(());
    };
    for extension in extensions.filter_map(Result::ok) {
        let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else {
            continue;
        };
        let ours = [
            &b"trusted.overlay."[..],
            b"user.overlay.",
            b"security.selinux",
            b"security.ima",
            b"security.evm",
        ];
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        match rustix::fs::lsetxattr(path, name, extension.value_bytes(), XattrFlags::empty()) {
            // The file system or our rights do not allow them; most programs run without.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => {
                return Err(io::Error::other(format!(
                    "setting the attribute {}: {error}",
                    String::from_utf8_lossy(name)
                )));
            }
        }
    }
    Ok(())
}
