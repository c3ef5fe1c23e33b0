//! Removes directory trees that others filled, whatever their shape.
//!
//! A tree is renamed into a folder of its own ([`Trash::discard`], one system call) and removed from there in the background.
//! Always: no recursion, two descriptors and one name in memory at a time, no path longer than one name, no symbolic link
//! followed. Deep trees are made flat first: directories inside a directory move up into the folder, so that a chain of any
//! depth is a list. `std::fs::remove_dir_all` recurses with a descriptor per level, and 60,000 levels end the process.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// A name in the folder can be taken by what an earlier process of the same id left; more collisions than this are a fault.
const NAME_ATTEMPTS: u32 = 10_000;

/// A folder on one file system whose contents are removed in the background.
#[derive(Debug)]
pub struct Trash {
    path: PathBuf,
    folder: OwnedFd,
    next: AtomicU64,
    wake: Notify,
    stopped: AtomicBool,
}

impl Trash {
    /// Opens (or makes) the folder; only its owner can enter it.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Arc::new(Self {
            path: path.to_owned(),
            folder: open_directory(CWD, path)?,
            next: AtomicU64::new(0),
            wake: Notify::new(),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Moves a file or tree into the folder, from where it is removed later; `false` when there is none. The path must be on
    /// the same file system.
    pub fn discard(&self, path: &Path) -> io::Result<bool> {
        match into(CWD, path, &self.folder, &self.next) {
            Ok(()) => {
                self.wake.notify_one();
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes everything in the folder. Blocks; [`Trash::stop`] ends it early with [`io::ErrorKind::Interrupted`].
    pub fn empty(&self) -> io::Result<()> {
        empty(&self.folder, &self.next, &|| {
            self.stopped.load(Ordering::Relaxed)
        })
    }

    /// Whether nothing waits for its removal.
    pub fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.path).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Ends a removal that is under way; what is left stays in the folder for the next start.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Empties the folder in a task of `tasks` whenever something was discarded, and once at the start.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        let (trash, token) = (Arc::clone(self), tasks.token());
        self.wake.notify_one();
        tasks.restarted("trash", move || {
            Arc::clone(&trash).empty_when_woken(token.clone())
        });
    }

    async fn empty_when_woken(self: Arc<Self>, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = self.wake.notified() => {}
            }
            let this = Arc::clone(&self);
            let mut work = tokio::task::spawn_blocking(move || this.empty());
            let outcome = tokio::select! {
                outcome = &mut work => outcome,
                () = token.cancelled() => {
                    self.stop();
                    work.await
                }
            };
            match outcome {
                Ok(Err(error)) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::warn!(folder = %self.path.display(), %error, "something that was thrown away cannot be removed; it is tried again later");
                }
                _ => {}
            }
        }
    }
}

/// Removes a tree (or file) of any shape; blocks until it is gone. A path that does not exist is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let folder = match open_directory(CWD, path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => return std::fs::remove_file(path),
    };
    empty(&folder, &AtomicU64::new(0), &|| false)?;
    std::fs::remove_dir(path)
}

/// Removes one entry of an open directory, whatever it is; blocks until it is gone. An absent entry is fine.
pub fn remove_at(directory: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    empty(
        &open_directory(directory, name)?,
        &AtomicU64::new(0),
        &|| false,
    )?;
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

fn open_directory(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

/// Renames something into `folder` under a name that is free there.
fn into(
    from: impl std::os::fd::AsFd + Copy,
    name: impl rustix::path::Arg + Copy,
    folder: &OwnedFd,
    next: &AtomicU64,
) -> rustix::io::Result<()> {
    for _ in 0..NAME_ATTEMPTS {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let free = format!("{}-{number}", std::process::id());
        match rustix::fs::renameat_with(from, name, folder, free.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::EXIST)
}

fn empty(folder: &OwnedFd, next: &AtomicU64, stopped: &dyn Fn() -> bool) -> io::Result<()> {
    let device = rustix::fs::fstat(folder)?.st_dev;
    // A directory that is read while its entries change may miss some: it is read until it is empty.
    loop {
        let (mut removed, mut failure) = (false, None);
        let mut left = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            if stopped() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            left = true;
            match remove_flat(folder, name, device, next, stopped) {
                Ok(()) => removed = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            _ if !left => return Ok(()),
            Some(error) if !removed => return Err(error),
            _ => {}
        }
    }
}

/// Removes one entry of the folder; directories inside it move up into the folder, where they are met again.
fn remove_flat(
    folder: &OwnedFd,
    name: &CStr,
    device: u64,
    next: &AtomicU64,
    stopped: &dyn Fn() -> bool,
) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let inside = match open_directory(folder, name) {
        Ok(inside) => inside,
        // Somebody else empties the same folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if rustix::fs::fstat(&inside)?.st_dev != device {
        return Err(io::Error::other(format!(
            "{} is another file system that is still mounted",
            name.to_string_lossy()
        )));
    }
    for entry in Dir::read_from(&inside)? {
        let entry = entry?;
        let name: CString = entry.file_name().to_owned();
        if is_dots(&name) {
            continue;
        }
        if stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match rustix::fs::unlinkat(&inside, name.as_c_str(), AtFlags::empty()) {
            Err(Errno::ISDIR) => match into(&inside, name.as_c_str(), folder, next) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            },
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        // Entries that the reading missed; it is met again in the next round.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("kinglet-trash-{name}-{}", std::process::id()));
        let _ = remove_tree(&path);
        std::fs::create_dir_all(&path).expect("scratch");
        path
    }

    /// A chain of directories that no path can name.
    fn chain(at: &Path, depth: usize) {
        let mut directory = open_directory(CWD, at).expect("open");
        for _ in 0..depth {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
            directory = open_directory(&directory, "d").expect("open");
        }
        rustix::fs::symlinkat("/etc", &directory, "link").expect("link");
    }

    #[test]
    fn a_chain_of_sixty_thousand_directories_goes_on_a_small_stack() {
        // On a disk a level costs what the disk needs to free a directory's block (0.3 to 3 ms); in memory only the calls count.
        let memory = Path::new("/dev/shm");
        let below = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let root = below.join(format!("kinglet-trash-deep-{}", std::process::id()));
        remove_tree(&root).expect("nothing there is fine");
        std::fs::create_dir(&root).expect("scratch");
        chain(&root, 60_000);
        let path = root.clone();
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || remove_tree(&path).expect("removed"))
            .expect("thread")
            .join()
            .expect("no overflow");
        assert!(!root.exists());
    }

    #[test]
    fn links_are_removed_and_never_followed() {
        let root = scratch("links");
        let (outside, tree) = (root.join("outside"), root.join("tree"));
        std::fs::create_dir_all(tree.join("a/b")).expect("tree");
        std::fs::create_dir_all(&outside).expect("outside");
        std::fs::write(outside.join("kept"), "x").expect("file");
        for at in ["link", "a/link", "a/b/link"] {
            std::os::unix::fs::symlink(&outside, tree.join(at)).expect("link");
        }
        let trash = Trash::open(&root.join("trash")).expect("trash");
        assert!(trash.discard(&tree).expect("discard"));
        assert!(!trash.discard(&tree).expect("gone already"));
        assert!(!trash.is_empty());
        trash.empty().expect("empty");
        assert!(trash.is_empty() && outside.join("kept").exists());
        remove_tree(&root).expect("clean");
    }

    #[tokio::test]
    async fn the_task_empties_what_is_discarded() {
        let root = scratch("task");
        let trash = Trash::open(&root.join("trash")).expect("trash");
        let tasks = Tasks::new();
        trash.start(&tasks);
        for number in 0..3 {
            let tree = root.join(format!("tree{number}"));
            std::fs::create_dir_all(tree.join("a/b/c")).expect("tree");
            trash.discard(&tree).expect("discard");
        }
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while !trash.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("emptied");
        assert!(tasks.shutdown(std::time::Duration::from_secs(5)).await);
        remove_tree(&root).expect("clean");
    }
}
