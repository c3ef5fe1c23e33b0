//! Writes volumes, and takes a pod's directories away again. Everything here blocks.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use kinglet_process::Trash;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::sys::beneath::Beneath;
use crate::volumes::contents::{Content, File};
use crate::volumes::{PodDirectories, PreparedVolume, memory_root};

/// The link that is replaced when the files of a volume change.
const DATA_LINK: &str = "..data";
/// The name under which the next link is made before it takes its place.
const NEXT_LINK: &str = "..next";
/// Files from the API in one volume: a projected volume of 16 objects of 1 MiB, twice while it changes, with room to spare.
const API_VOLUME_OPTIONS: &str = "mode=0755,size=64m";
/// `/etc/hosts` and its kin of one pod.
const ETC_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=16";
/// The last words of one container. 4 KiB of them are read; a program that writes more meets a full disk.
const TERMINATION_OPTIONS: &str = "mode=0755,size=64k,nr_inodes=8";

/// Mounts the node's memory, after letting go what an earlier life left mounted.
pub(crate) fn open_memory(data: &Path) -> io::Result<()> {
    if let Err(error) = close_memory(data) {
        tracing::debug!(%error, "something of an earlier life stays mounted");
    }
    let root = memory_root(data);
    make_directory(&root, 0o700)?;
    mount(
        "tmpfs",
        &root,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0700",
    )?;
    // What is mounted below must show up in processes that are parked already.
    mount_change(&root, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// Lets everything below the node's memory go.
pub(crate) fn close_memory(data: &Path) -> io::Result<()> {
    unmount_below(&memory_root(data))
}

/// Unmounts all it can, and says why the first of the rest stays.
fn unmount_below(root: &Path) -> io::Result<()> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mut below: Vec<PathBuf> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(root))
        .collect();
    below.sort();
    let mut done = Ok(());
    for path in below.iter().rev() {
        if let Err(error) = unmount(path, UnmountFlags::DETACH) {
            tracing::debug!(path = %path.display(), %error, "not unmounted");
            done = done.and(Err(error.into()));
        }
    }
    done
}

/// A path as `/proc/self/mountinfo` writes it: space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match code {
            Some(code) if first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

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

/// A file system in memory with a size of its own, mounted once.
fn mount_memory(directory: &Path, options: &str) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    make_directory(directory, 0o755)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let options = CString::new(options)?;
    mount("tmpfs", directory, "tmpfs", flags, options.as_c_str()).map_err(|error| {
        // Tried again from the start, never used without its bound.
        let _ = fs::remove_dir(directory);
        io::Error::from(error)
    })
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

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
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

/// All at once: a new directory is filled, then the link to it replaced, then names that are new are linked.
fn write_files(volume: &Beneath, files: &[File], group: Option<u32>) -> io::Result<()> {
    let link = OsStr::new(DATA_LINK);
    let current = volume.read_link(link).and_then(|target| {
        let number: u64 = target.to_str()?.strip_prefix("..")?.parse().ok()?;
        Some(number)
    });
    let name_of = |number: u64| OsString::from(format!("..{number}"));
    // What leads anywhere else is not ours, and is only replaced.
    let old = current.map(name_of);
    if let Some(old) = &old
        && holds(volume, Path::new(old), files)
    {
        return Ok(());
    }
    let fresh = name_of(current.unwrap_or(0).wrapping_add(1));
    // Left by a change that was interrupted.
    volume.remove(&fresh)?;
    volume.remove(OsStr::new(NEXT_LINK))?;
    let inside = Path::new(&fresh);
    volume.make_directories(inside, 0o755)?;
    for file in files {
        let path = inside.join(&file.path);
        if let Some(parent) = path.parent() {
            volume.make_directories(parent, 0o755)?;
        }
        // Members of the pod's group may read, as Kubernetes has it.
        let mode = if group.is_some() {
            file.mode | 0o440
        } else {
            file.mode
        };
        volume.write_new(&path, &file.bytes, mode, group)?;
    }
    volume.link(OsStr::new(NEXT_LINK), inside)?;
    volume.rename(OsStr::new(NEXT_LINK), link)?;
    link_names(volume, files)?;
    if let Some(old) = old.filter(|old| *old != fresh) {
        volume.remove(&old)?;
    }
    Ok(())
}

/// Links the first part of every path to the current files, and removes what is not a file of the volume any more.
fn link_names(volume: &Beneath, files: &[File]) -> io::Result<()> {
    let mut names: Vec<&OsStr> = files
        .iter()
        .filter_map(|file| file.path.components().next())
        .map(|part| part.as_os_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        if !volume.has(name) {
            volume.link(name, &Path::new(DATA_LINK).join(name))?;
        }
    }
    for name in volume.names()? {
        let hidden = name.to_string_lossy().starts_with("..");
        if !hidden && !names.contains(&name.as_os_str()) {
            volume.remove(&name)?;
        }
    }
    Ok(())
}

/// Whether the directory holds exactly these files.
fn holds(volume: &Beneath, directory: &Path, files: &[File]) -> bool {
    files.iter().all(|file| {
        volume
            .read(&directory.join(&file.path), file.bytes.len())
            .is_some_and(|bytes| bytes == file.bytes)
    }) && volume.names().is_ok_and(|names| {
        // A file that went away has its link still.
        names
            .iter()
            .filter(|name| !name.to_string_lossy().starts_with(".."))
            .all(|name| {
                files
                    .iter()
                    .any(|file| file.path.starts_with(Path::new(name)))
            })
    }) && count(volume, directory) == files.len()
}

/// Files below a directory of ours.
fn count(volume: &Beneath, directory: &Path) -> usize {
    let mut pending = vec![directory.to_owned()];
    let mut files = 0;
    while let Some(next) = pending.pop() {
        for (name, is_directory) in volume.entries(&next).unwrap_or_default() {
            if is_directory {
                pending.push(next.join(name));
            } else {
                files += 1;
            }
        }
    }
    files
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
    use std::os::unix::fs::PermissionsExt as _;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            bytes: text.as_bytes().to_vec(),
            mode: 0o640,
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("kinglet-volume-{name}-{}", std::process::id()));
        let _ = kinglet_process::trash::remove_tree(&path);
        fs::create_dir_all(path.join("v")).expect("scratch");
        path
    }

    fn update(directory: &Path, files: &[File]) -> io::Result<()> {
        write_files(&Beneath::open(directory)?, files, None)
    }

    #[test]
    fn files_change_all_at_once_and_old_names_go() {
        let root = scratch("change");
        let directory = root.join("v");
        update(&directory, &[file("a", "1"), file("d/b", "2")]).expect("write");
        assert_eq!(
            fs::read_to_string(directory.join("d/b")).expect("file"),
            "2"
        );
        assert_eq!(
            fs::metadata(directory.join("a"))
                .expect("file")
                .permissions()
                .mode()
                & 0o777,
            0o640
        );
        let before = fs::read_link(directory.join(DATA_LINK)).expect("link");
        update(&directory, &[file("a", "1"), file("d/b", "2")]).expect("write");
        assert_eq!(
            fs::read_link(directory.join(DATA_LINK)).expect("link"),
            before,
            "nothing changed"
        );
        update(&directory, &[file("a", "3"), file("c", "4")]).expect("write");
        assert_eq!(fs::read_to_string(directory.join("a")).expect("file"), "3");
        assert!(directory.join("d").symlink_metadata().is_err() && directory.join("c").exists());
        assert!(!directory.join(before).exists());
        update(&directory, &[file("a", "3")]).expect("write");
        assert!(directory.join("c").symlink_metadata().is_err());
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }

    /// What `shared/cases/volume-link-swap.yaml` does, for a pod that could write its volume.
    #[test]
    fn links_that_a_pod_put_in_place_lead_nowhere() {
        let root = scratch("swap");
        let (directory, outside) = (root.join("v"), root.join("outside"));
        fs::create_dir_all(outside.join("kept")).expect("outside");
        fs::write(outside.join("file"), "outside").expect("outside");
        update(&directory, &[file("file", "1")]).expect("write");
        for (round, name) in ["..data", "..1", "..2", "..3", "file", "..next"]
            .iter()
            .enumerate()
        {
            let path = directory.join(name);
            let _ = kinglet_process::trash::remove_tree(&path);
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(&outside, &path).expect("link");
            // It may refuse, but it must not follow.
            let _ = update(&directory, &[file("file", &format!("changed {round}"))]);
            let _ = update(&directory, &[file("other", "x")]);
        }
        assert_eq!(
            fs::read_to_string(outside.join("file")).expect("untouched"),
            "outside"
        );
        assert!(outside.join("kept").is_dir());
        assert_eq!(fs::read_dir(&outside).expect("list").count(), 2);
        kinglet_process::trash::remove_tree(&root).expect("clean");
    }

    #[test]
    fn mount_points_with_odd_names_are_found() {
        assert_eq!(
            unescape(br"/a\040b\011c\134d\012"),
            Path::new("/a b\tc\\d\n")
        );
        assert_eq!(unescape(br"/plain\"), Path::new(r"/plain\"));
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
