//! Files beneath an open directory, where somebody else may have put links.
//!
//! Always: every path is resolved by `openat2` with `RESOLVE_BENEATH`, `NO_SYMLINKS` and `NO_MAGICLINKS`, so that nothing
//! outside of the directory is read, written or removed, whatever a container did inside; new files are made with `O_EXCL`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// `openat2` asks to try again when somebody renames directories meanwhile; more often than this is an attack.
const RACES_MAX: u32 = 100;

/// An open directory beneath which all work happens.
#[derive(Debug)]
pub(crate) struct Beneath(OwnedFd);

impl Beneath {
    /// Opens a directory; its own path must be one that only Kinglet writes.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACES_MAX {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                outcome => return Ok(outcome?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The directory that holds the last part of `path`, and that part.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok((self.resolve(parent, flags, Mode::empty())?, name))
    }

    /// Makes a directory and those above it; those that are there stay as they are.
    pub(crate) fn make_directories(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut reached = PathBuf::new();
        for part in path.components() {
            reached.push(part);
            let (parent, name) = self.parent(&reached)?;
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes a new file; one that exists, also as a link, is an error.
    pub(crate) fn write_new(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        group: Option<u32>,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        file.write_all(bytes)?;
        if let Some(group) = group {
            rustix::fs::fchown(file.as_fd(), None, Some(Gid::from_raw(group)))?;
        }
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode))?;
        Ok(())
    }

    /// The content of a regular file of at most `bytes_max` bytes; `None` for anything else.
    pub(crate) fn read(&self, path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
        let bytes = self.read_start(path, bytes_max + 1)?;
        (bytes.len() <= bytes_max).then_some(bytes)
    }

    /// The first `bytes_max` bytes of a regular file.
    pub(crate) fn read_start(&self, path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
        // A FIFO must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = self.resolve(path, flags, Mode::empty()).ok()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
        if kind != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::new();
        File::from(file)
            .take(bytes_max as u64)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// Where a link directly in the directory leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> Option<OsString> {
        plain(name).ok()?;
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()))
    }

    /// Makes a link directly in the directory.
    pub(crate) fn link(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        plain(name)?;
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    /// Renames an entry of the directory over another one.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        plain(from)?;
        plain(to)?;
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes an entry of the directory, whatever it is.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        plain(name)?;
        kinglet_process::trash::remove_at(&self.0, name)
    }

    /// Whether there is an entry of that name, without following it.
    pub(crate) fn has(&self, name: &OsStr) -> bool {
        plain(name).is_ok() && rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The entries of the directory.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = self.entries(Path::new("."))?;
        Ok(entries.into_iter().map(|(name, _)| name).collect())
    }

    /// The entries of a directory beneath, and whether they are directories.
    pub(crate) fn entries(&self, path: &Path) -> io::Result<Vec<(OsString, bool)>> {
        let directory = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                entries.push((name, entry.file_type() == FileType::Directory));
            }
        }
        Ok(entries)
    }

    /// Sets mode and group of the directory itself.
    pub(crate) fn set_mode(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        if let Some(group) = group {
            rustix::fs::fchown(&self.0, None, Some(Gid::from_raw(group)))?;
        }
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }
}

/// Refuses what is not the name of one entry: calls that take a name would take a path, and an absolute one leads away.
fn plain(name: &OsStr) -> io::Result<()> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(std::path::Component::Normal(only)), None) if only == name => Ok(()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere() {
        let root = std::env::temp_dir().join(format!("kinglet-beneath-{}", std::process::id()));
        let _ = kinglet_process::trash::remove_tree(&root);
        let (inside, outside) = (root.join("inside"), root.join("outside"));
        std::fs::create_dir_all(&inside).expect("inside");
        std::fs::create_dir_all(&outside).expect("outside");
        std::fs::write(outside.join("secret"), "x").expect("file");
        std::os::unix::fs::symlink(&outside, inside.join("out")).expect("link");
        std::os::unix::fs::symlink(outside.join("new"), inside.join("file")).expect("link");
        let directory = Beneath::open(&inside).expect("open");
        assert_eq!(directory.read(Path::new("out/secret"), 100), None);
        assert_eq!(directory.read(Path::new("../outside/secret"), 100), None);
        for path in ["out/file", "file", "../outside/file"] {
            assert!(
                directory
                    .write_new(Path::new(path), b"y", 0o644, None)
                    .is_err(),
                "{path}"
            );
        }
        assert!(
            directory
                .make_directories(Path::new("out/a/b"), 0o755)
                .is_err()
        );
        let absolute = outside.join("secret").into_os_string();
        for name in [
            absolute.as_os_str(),
            OsStr::new("../outside/secret"),
            OsStr::new(".."),
            OsStr::new("out/"),
        ] {
            assert!(directory.remove(name).is_err(), "{}", name.display());
            assert!(directory.rename(OsStr::new("out"), name).is_err());
        }
        directory.remove(OsStr::new("out")).expect("the link goes");
        assert_eq!(std::fs::read_dir(&outside).expect("list").count(), 1);
        directory
            .make_directories(Path::new("a/b"), 0o755)
            .expect("directories");
        directory
            .write_new(Path::new("a/b/c"), b"text", 0o640, None)
            .expect("file");
        assert_eq!(
            directory.read(Path::new("a/b/c"), 4),
            Some(b"text".to_vec())
        );
        assert_eq!(directory.read(Path::new("a/b/c"), 3), None, "too long");
        assert_eq!(directory.read(Path::new("a"), 100), None, "no file");
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }
}
