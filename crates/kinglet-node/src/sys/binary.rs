//! The program that helpers run: a sealed copy of our own binary in memory.
//!
//! A process inside a container can open `/proc/PID/exe` of a helper. If that were the binary on disk, root in a
//! container could overwrite it and wait for the next start (CVE-2019-5736). The copy cannot be changed by anybody.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};

/// The copies of this process, by the path they were made from: one binary, so one entry.
static COPIES: LazyLock<Mutex<Option<(PathBuf, SealedBinary)>>> = LazyLock::new(Mutex::default);

/// A binary that nobody can write to. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SealedBinary(Arc<OwnedFd>);

impl SealedBinary {
    /// Copies the binary at `path`, once per process. Blocking: reads the whole file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut copies = COPIES.lock();
        if let Some((known, copy)) = &*copies
            && known == path
        {
            return Ok(copy.clone());
        }
        let copy = Self(Arc::new(seal(path)?));
        *copies = Some((path.to_owned(), copy.clone()));
        Ok(copy)
    }

    /// What a child of this process can `exec`.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

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

    #[test]
    fn a_copy_is_made_once_and_cannot_be_written() {
        let copy = SealedBinary::of(Path::new("/bin/sh")).expect("copy");
        let again = SealedBinary::of(Path::new("/bin/sh")).expect("copy");
        assert!(Arc::ptr_eq(&copy.0, &again.0));
        let opened = std::fs::OpenOptions::new().write(true).open(copy.path());
        let error = opened
            .and_then(|mut file| file.write_all(b"x"))
            .expect_err("sealed");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        let run = std::process::Command::new(copy.path())
            .args(["-c", "exit 3"])
            .status()
            .expect("runs");
        assert_eq!(run.code(), Some(3));
    }
}
