//! Finds or makes the place where something is mounted inside a container's root.
//!
//! As runc does: every link of the path is followed as if the container's root were the whole file system (absolute ones
//! start there, `..` never leaves it), and what is missing is made, also behind a dangling link. Magic links of `/proc` are
//! not followed. What comes back is a descriptor, so that nothing can change between looking and mounting.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Links on the way to one place (runc's bound; the kernel's is 40).
const LINKS_MAX: usize = 255;

/// What must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Directory,
    File,
}

/// Opens `path` below `root` (`O_PATH`), following links inside it and making what is missing.
pub(crate) fn open(root: &OwnedFd, path: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
    // The kernel follows links in the same way; it only makes nothing.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if let Ok(found) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        let is_directory =
            FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Directory;
        if is_directory == (kind == TargetKind::Directory) {
            return Ok(found);
        }
    }
    open_or_make(root, path, kind)
}

/// Goes name by name.
fn open_or_make(root: &OwnedFd, path: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
    let mut pending = parts(path);
    let (mut reached, mut links) = (PathBuf::from("."), 0);
    while let Some(part) = pending.pop_front() {
        if part == ".." {
            if reached != Path::new(".") {
                reached.pop();
            }
            continue;
        }
        let last = pending.is_empty();
        let parent = beneath(root, &reached, OFlags::PATH | OFlags::DIRECTORY)?;
        let entry = match entry(&parent, &part) {
            Err(Errno::NOENT) => {
                make(&parent, &part, last && kind == TargetKind::File)?;
                entry(&parent, &part)?
            }
            outcome => outcome?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&entry, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    reached = PathBuf::from(".");
                }
                for part in parts(&target).into_iter().rev() {
                    pending.push_front(part);
                }
            }
            FileType::Directory => reached.push(part),
            _ if last && kind == TargetKind::File => return Ok(entry),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
    }
    if kind == TargetKind::File {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    beneath(root, &reached, OFlags::PATH | OFlags::DIRECTORY)
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

/// Opens a path that has no links left.
fn beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?)
}

/// The entry itself, also when it is a link.
fn entry(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes what is missing; the mode does not depend on the umask.
fn make(parent: &OwnedFd, name: &OsStr, file: bool) -> rustix::io::Result<()> {
    if file {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
        return rustix::fs::fchmod(&made, Mode::from_raw_mode(0o644));
    }
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("kinglet-target-{name}-{}", std::process::id()));
            let _ = kinglet_process::trash::remove_tree(&path);
            std::fs::create_dir_all(path.join("root/etc")).expect("root");
            std::fs::create_dir_all(path.join("outside")).expect("outside");
            Self(path)
        }

        fn link(&self, target: &str, at: &str) {
            symlink(target, self.0.join("root").join(at)).expect("link");
        }

        fn open(&self, path: &str, kind: TargetKind) -> io::Result<()> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(self.0.join("root"), flags, Mode::empty())?;
            open(&root, Path::new(path), kind).map(drop)
        }

        fn is_file(&self, path: &str) -> bool {
            self.0
                .join("root")
                .join(path)
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_file())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = kinglet_process::trash::remove_tree(&self.0);
        }
    }

    #[test]
    fn links_of_images_in_the_wild() {
        let root = Root::new("wild");
        root.link("../run/missing/resolv.conf", "etc/resolv.conf");
        root.link("/absolute/hosts", "etc/hosts");
        root.link("hop1", "etc/hostname");
        root.link("../../../hop2", "etc/hop1");
        root.link("data/hostname", "hop2");
        root.link("/run", "var-run");
        for (path, real) in [
            ("/etc/resolv.conf", "run/missing/resolv.conf"),
            ("/etc/hosts", "absolute/hosts"),
            ("/etc/hostname", "data/hostname"),
            ("/var-run/secrets/../secrets/token", "run/secrets/token"),
        ] {
            root.open(path, TargetKind::File).expect(path);
            assert!(root.is_file(real), "{path} leads to {real}");
            root.open(path, TargetKind::File).expect("found again");
        }
        root.open("/var-run/a/b", TargetKind::Directory)
            .expect("made");
        assert!(root.0.join("root/run/a/b").is_dir());
        root.open("/", TargetKind::Directory).expect("the root");
    }

    #[test]
    fn nothing_leads_out() {
        let root = Root::new("out");
        let outside = root.0.join("outside");
        root.link(outside.to_str().expect("text"), "absolute");
        root.link("../outside", "relative");
        root.link("loop", "loop");
        for at in ["absolute", "relative"] {
            root.open(&format!("/{at}/x/y"), TargetKind::File)
                .expect("inside");
        }
        assert_eq!(
            std::fs::read_dir(&outside).expect("outside").count(),
            0,
            "nothing was made outside"
        );
        assert!(root.is_file("outside/x/y"));
        assert!(root.open("/loop/x", TargetKind::File).is_err());
        assert!(root.open("/etc", TargetKind::File).is_err());
        std::fs::write(root.0.join("root/file"), "").expect("file");
        assert!(root.open("/file", TargetKind::Directory).is_err());
        assert!(root.open("/file/x", TargetKind::File).is_err());
    }
}
