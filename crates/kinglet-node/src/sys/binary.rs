//! The program that helpers run: our own binary, as a file that nobody can write to.
//!
//! A process inside a container can open `/proc/PID/exe` of a helper. If that were the binary on disk, root in a
//! container could overwrite it and wait for the next start (CVE-2019-5736). What helpers run is the same file seen through
//! an overlay file system without a writable layer, mounted nowhere: the kernel refuses every write to it and nobody can
//! mount it anew, while its pages are those of the binary on disk. Where there is no such thing (the binary lies on two
//! overlays already, or on a kernel before 5.2), it is a sealed copy in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// The binaries of this process, by the path they were found at: one binary, so one entry.
static OPENED: LazyLock<Mutex<Option<(PathBuf, SealedBinary)>>> = LazyLock::new(Mutex::default);

/// A binary that nobody can write to. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SealedBinary(Arc<OwnedFd>);

impl SealedBinary {
    /// Opens the binary at `path`, once per process. Blocking: may have to copy the whole file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut opened = OPENED.lock();
        if let Some((known, binary)) = &*opened
            && known == path
        {
            return Ok(binary.clone());
        }
        let file = behind_overlay(path).or_else(|error| {
            tracing::debug!(%error, "helpers run from a copy of the binary in memory");
            seal(path)
        })?;
        let binary = Self(Arc::new(file));
        *opened = Some((path.to_owned(), binary.clone()));
        Ok(binary)
    }

    /// What a child of this process can `exec`.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The binary through an overlay file system that has no writable layer.
fn behind_overlay(path: &Path) -> io::Result<OwnedFd> {
    let real = path.canonicalize()?;
    let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let nothing = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    // Without a writable layer there must be two others.
    let empty = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&empty)?;
    let empty = fsmount(&empty, FsMountFlags::FSMOUNT_CLOEXEC, nothing)?;
    let layers = [
        &escaped(directory)[..],
        format!(":/proc/self/fd/{}", empty.as_raw_fd()).as_bytes(),
    ]
    .concat();
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "lowerdir", layers.as_slice())?;
    fsconfig_create(&overlay)?;
    let tree = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, nothing)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&tree, name, flags, Mode::empty())?;
    let (seen, wanted) = (rustix::fs::fstat(&file)?, std::fs::metadata(path)?);
    // A binary that has been replaced since this process started has another protocol.
    if (seen.st_ino, u64::try_from(seen.st_size)) != (wanted.ino(), Ok(wanted.len())) {
        return Err(io::Error::other("the path leads to another file"));
    }
    Ok(file)
}

/// As the option takes a path: a colon separates layers.
fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"\\:".contains(byte) {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}

/// A copy in memory that is sealed.
fn seal(path: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("kinglet", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag, and every such file can be run.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("kinglet", flags)?,
        other => other?,
    };
    let mut copy = File::from(memory);
    io::copy(&mut File::open(path)?, &mut copy)?;
    let copy = OwnedFd::from(copy);
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// What `statfs(2)` says of an overlay.
    const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794c_7630;

    /// Nobody can write to it, and it runs.
    fn check(file: &OwnedFd, refused_with: i32) {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        let error = opened
            .and_then(|mut file| file.write_all(b"x"))
            .expect_err("nobody can write to it");
        assert_eq!(error.raw_os_error(), Some(refused_with));
        let run = std::process::Command::new(&path)
            .args(["-c", "exit 3"])
            .status()
            .expect("runs");
        assert_eq!(run.code(), Some(3));
    }

    #[test]
    fn a_copy_cannot_be_written() {
        check(&seal(Path::new("/bin/sh")).expect("copy"), libc::EPERM);
    }

    #[test]
    fn a_binary_behind_an_overlay_cannot_be_written() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory =
            std::env::temp_dir().join(format!("kinglet-b:\\i,n-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let magic = rustix::fs::statfs(&directory)
            .expect("its file system")
            .f_type;
        let overlays_work = magic != OVERLAYFS_SUPER_MAGIC;
        for name in ["plain", "b:\\n"] {
            let path = directory.join(name);
            std::fs::copy("/bin/sh", &path).expect("binary");
            match behind_overlay(&path) {
                Ok(file) => check(&file, libc::EROFS),
                // The directory of temporary files may lie on an overlay; then there is the copy.
                Err(error) => assert!(!overlays_work, "{name}: {error}"),
            }
        }
        std::fs::remove_dir_all(&directory).expect("clean");
    }

    #[test]
    fn it_is_opened_once() {
        let one = SealedBinary::of(Path::new("/bin/sh")).expect("binary");
        let again = SealedBinary::of(Path::new("/bin/sh")).expect("binary");
        assert!(Arc::ptr_eq(&one.0, &again.0));
    }
}
