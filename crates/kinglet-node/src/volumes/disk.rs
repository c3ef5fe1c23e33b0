//! Writes volumes, and takes a pod's directories away again. Everything here blocks.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::Path;

use kinglet_process::Trash;
use rustix::mount::{UnmountFlags, unmount};

use crate::sys::beneath::Beneath;
use crate::volumes::contents::Content;
use crate::volumes::files::write_files;
use crate::volumes::memory::{mount_memory, unmount_below};
use crate::volumes::{PodDirectories, PreparedVolume};

/// Files from the API in one volume: a projected volume of 16 objects of 1 MiB, twice while it changes, with room to spare.
const API_VOLUME_OPTIONS: &str = "mode=0755,size=64m";
/// `/etc/hosts` and its kin of one pod.
const ETC_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=16";
/// The last words of one container. 4 KiB of them are read; a program that writes more meets a full disk.
const TERMINATION_OPTIONS: &str = "mode=0755,size=64k,nr_inodes=8";

/// Moves what pods of an earlier life left out of the way and makes the directory for new ones. Nothing that a container left
/// can make a start fail.
pub(crate) fn clear_pods(data: &Path, trash: &Trash) -> io::Result<()> {
    let pods = data.join("pods");
    let left = fs::read_dir(&pods).is_ok_and(|mut entries| entries.next().is_some());
    match trash.discard(&pods) {
        Ok(_) if left => {
            tracing::info!("files that pods of an earlier life left are removed in the background");
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(directory = %pods.display(), %error, "files of an earlier life stay behind");
        }
    }
    // Programs inside may be setuid: nobody else on the host shall reach them.
    make_directory(&pods, 0o700)
}

/// Writes one volume and gives its place. Called again, it brings the files up to date.
pub(crate) fn write(
    directories: &PodDirectories,
    name: &str,
    content: &Content,
    group: Option<u32>,
) -> io::Result<PreparedVolume> {
    let volume = |path, read_only, of_host| PreparedVolume {
        path,
        read_only,
        of_host,
    };
    match content {
        Content::Files(files) => {
            let directory = directories.volume(name, true);
            mount_memory(&directory, API_VOLUME_OPTIONS)?;
            write_files(&Beneath::open(&directory)?, files, group)?;
            Ok(volume(directory, true, false))
        }
        Content::Empty => {
            let directory = directories.volume(name, false);
            if !directory.exists() {
                make_directory(&directory, 0o755)?;
                open_to_all(&directory, group)?;
            }
            Ok(volume(directory, false, false))
        }
        Content::Memory(bytes_max) => {
            let directory = directories.volume(name, true);
            if !directory.exists() {
                let size = bytes_max.map_or_else(|| "50%".to_owned(), |bytes| bytes.to_string());
                mount_memory(&directory, &format!("mode=0777,size={size}"))?;
                open_to_all(&directory, group)?;
            }
            Ok(volume(directory, false, false))
        }
        Content::Host { path, kind } => {
            check_host_path(path, kind)?;
            Ok(volume(path.clone(), false, true))
        }
    }
}

/// What `hostPath.type` promises.
fn check_host_path(path: &Path, kind: &str) -> io::Result<()> {
    let wrong = |wanted: &str| {
        Err(io::Error::other(format!(
            "hostPath type check failed: {} is not a {wanted}",
            path.display()
        )))
    };
    let found = fs::metadata(path).map(|meta| meta.file_type());
    match (kind, found) {
        ("DirectoryOrCreate", Err(_)) => make_directory(path, 0o755),
        ("FileOrCreate", Err(_)) => fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(drop),
        (_, Err(error)) => Err(error),
        ("Directory" | "DirectoryOrCreate", Ok(found)) if !found.is_dir() => wrong("directory"),
        ("File" | "FileOrCreate", Ok(found)) if !found.is_file() => wrong("file"),
        ("Socket", Ok(found)) if !found.is_socket() => wrong("socket file"),
        ("CharDevice", Ok(found)) if !found.is_char_device() => wrong("character device"),
        ("BlockDevice", Ok(found)) if !found.is_block_device() => wrong("block device"),
        _ => Ok(()),
    }
}

pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// The mode of an `emptyDir`; with the pod's group, what is made inside belongs to it.
fn open_to_all(path: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    Beneath::open(path)?.set_mode(mode, group)
}

/// Writes the files that every container gets, once per pod: a container may have changed its copy.
pub(crate) fn write_etc(directories: &PodDirectories, files: &[(&str, &str)]) -> io::Result<()> {
    let directory = directories.etc("");
    if directory.exists() {
        return Ok(());
    }
    mount_memory(&directory, ETC_OPTIONS)?;
    let etc = Beneath::open(&directory)?;
    for (name, text) in files {
        etc.write_new(Path::new(name), text.as_bytes(), 0o644, None)?;
    }
    Ok(())
}

/// Makes the file in which a container leaves its last words.
pub(crate) fn make_termination_log(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    mount_memory(directory, TERMINATION_OPTIONS)?;
    let directory = Beneath::open(directory)?;
    directory.remove(name)?;
    directory.write_new(Path::new(name), b"", 0o666, None)
}

/// The first `bytes_max` bytes of a container's last words.
pub(crate) fn read_termination_log(path: &Path, bytes_max: usize) -> String {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return String::new();
    };
    let bytes = Beneath::open(directory)
        .ok()
        .and_then(|directory| directory.read_start(Path::new(name), bytes_max))
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lets go what one life of a container needed.
pub(crate) fn remove_container(
    directories: &PodDirectories,
    trash: &Trash,
    name: &str,
    attempt: u32,
) {
    if let Some(termination) = directories.termination_log(name, attempt).parent() {
        let _ = unmount(termination, UnmountFlags::DETACH);
        let _ = fs::remove_dir(termination);
    }
    discard(trash, &directories.container(name, attempt));
}

/// Lets go everything of a pod.
pub(crate) fn remove(directories: &PodDirectories, trash: &Trash) {
    if let Err(error) = unmount_below(&directories.memory) {
        tracing::warn!(directory = %directories.memory.display(), %error, "a pod's volume in memory stays mounted");
    }
    if let Err(error) = kinglet_process::trash::remove_tree(&directories.memory) {
        tracing::warn!(directory = %directories.memory.display(), %error, "a pod's directory stays behind");
    }
    discard(trash, &directories.disk);
}

fn discard(trash: &Trash, directory: &Path) {
    if let Err(error) = trash.discard(directory) {
        tracing::warn!(directory = %directory.display(), %error, "a directory stays behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("kinglet-volume-{name}-{}", std::process::id()));
        let _ = kinglet_process::trash::remove_tree(&path);
        fs::create_dir_all(path.join("v")).expect("scratch");
        path
    }

    #[test]
    fn leftovers_of_an_earlier_life_never_fail_a_start() {
        let root = scratch("left");
        let trash = Trash::open(&root.join("trash")).expect("trash");
        fs::create_dir_all(root.join("pods/uid/volumes/v/a/b/c")).expect("left");
        clear_pods(&root, &trash).expect("start");
        assert_eq!(fs::read_dir(root.join("pods")).expect("pods").count(), 0);
        assert!(!trash.is_empty());
        trash.empty().expect("empty");
        clear_pods(&root, &trash).expect("nothing left");
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }

    #[test]
    fn host_paths_are_what_their_type_says() {
        let root = scratch("host");
        let directory = root.join("v");
        fs::write(root.join("f"), "").expect("file");
        for (path, kind, right) in [
            (directory.clone(), "Directory", true),
            (directory.clone(), "File", false),
            (root.join("f"), "File", true),
            (root.join("f"), "Socket", false),
            (PathBuf::from("/dev/null"), "CharDevice", true),
            (PathBuf::from("/dev/null"), "BlockDevice", false),
            (root.join("none"), "", false),
            (root.join("new"), "DirectoryOrCreate", true),
            (root.join("new"), "Directory", true),
        ] {
            assert_eq!(
                check_host_path(&path, kind).is_ok(),
                right,
                "{} as {kind}",
                path.display()
            );
        }
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }
}
