//! Writes volumes, and takes a pod's directories away again. Everything here blocks.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::volumes::contents::{Content, File};
use crate::volumes::{PodDirectories, memory_root};

/// The link that is replaced when the files of a volume change.
const DATA_LINK: &str = "..data";

/// Mounts the node's memory, after letting go what an earlier life left mounted.
pub(crate) fn open_memory(data: &Path) -> io::Result<()> {
    close_memory(data);
    let root = memory_root(data);
    fs::create_dir_all(&root)?;
    mount(
        "tmpfs",
        &root,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0711",
    )?;
    // Volumes in memory that are mounted below must show up in processes that are parked already.
    mount_change(&root, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// Lets everything below the node's memory go.
pub(crate) fn close_memory(data: &Path) {
    let root = memory_root(data);
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(&root))
        .collect();
    below.sort();
    for path in below.iter().rev() {
        if let Err(error) = unmount(path, UnmountFlags::DETACH) {
            tracing::debug!(path = %path.display(), %error, "not unmounted");
        }
    }
}

/// Writes one volume and gives its place. Called again, it brings the files up to date.
pub(crate) fn write(
    directories: &PodDirectories,
    name: &str,
    content: &Content,
    group: Option<u32>,
) -> io::Result<PathBuf> {
    match content {
        Content::Files(files) => {
            let directory = directories.volume(name, true);
            write_files(&directory, files, group)?;
            Ok(directory)
        }
        Content::Empty => {
            let directory = directories.volume(name, false);
            open_directory(&directory, group)?;
            Ok(directory)
        }
        Content::Memory(bytes_max) => {
            let directory = directories.volume(name, true);
            if !directory.exists() {
                make_directory(&directory, 0o755)?;
                let options = bytes_max.map_or_else(
                    || "mode=0777".to_owned(),
                    |bytes| format!("mode=0777,size={bytes}"),
                );
                let options = std::ffi::CString::new(options)?;
                mount(
                    "tmpfs",
                    &directory,
                    "tmpfs",
                    MountFlags::NOSUID | MountFlags::NODEV,
                    options.as_c_str(),
                )?;
            }
            open_directory(&directory, group)?;
            Ok(directory)
        }
        Content::Host { path, kind } => {
            match kind.as_str() {
                "DirectoryOrCreate" => make_directory(path, 0o755)?,
                "FileOrCreate" => drop(
                    fs::OpenOptions::new()
                        .create(true)
                        .append(true)
                        .mode(0o644)
                        .open(path)?,
                ),
                "Directory" if !path.is_dir() => return Err(not_a(path, "directory")),
                "File" if !path.is_file() => return Err(not_a(path, "file")),
                _ => {
                    fs::metadata(path)?;
                }
            }
            Ok(path.clone())
        }
    }
}

fn not_a(path: &Path, kind: &str) -> io::Error {
    io::Error::other(format!(
        "hostPath type check failed: {} is not a {kind}",
        path.display()
    ))
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

fn open_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    make_directory(path, 0o777)?;
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }),
    )?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    Ok(())
}

/// All at once: a new directory is filled, then the link to it replaced, then names that are new are linked.
fn write_files(directory: &Path, files: &[File], group: Option<u32>) -> io::Result<()> {
    make_directory(directory, 0o755)?;
    let link = directory.join(DATA_LINK);
    let old = fs::read_link(&link).ok();
    if old
        .as_ref()
        .is_some_and(|old| same(&directory.join(old), files))
    {
        return Ok(());
    }
    let number = old
        .as_ref()
        .and_then(|old| old.to_str()?.strip_prefix("..")?.parse::<u64>().ok())
        .unwrap_or(0)
        + 1;
    let fresh = format!("..{number}");
    let inside = directory.join(&fresh);
    make_directory(&inside, 0o755)?;
    for file in files {
        let path = inside.join(&file.path);
        if let Some(parent) = path.parent() {
            make_directory(parent, 0o755)?;
        }
        fs::write(&path, &file.bytes)?;
        // Members of the pod's group may read, as Kubernetes has it.
        let mode = if group.is_some() {
            file.mode | 0o040
        } else {
            file.mode
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if group.is_some() {
            std::os::unix::fs::chown(&path, None, group)?;
        }
    }
    let next = directory.join("..next");
    let _ = fs::remove_file(&next);
    symlink(&fresh, &next)?;
    fs::rename(&next, &link)?;
    let mut names: Vec<_> = files
        .iter()
        .filter_map(|file| file.path.components().next())
        .map(|part| part.as_os_str().to_owned())
        .collect();
    names.sort();
    names.dedup();
    for name in &names {
        match symlink(Path::new(DATA_LINK).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    if let Some(old) = old {
        for entry in fs::read_dir(directory)?.flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir_all(directory.join(old));
    }
    Ok(())
}

fn same(directory: &Path, files: &[File]) -> bool {
    let mut count = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            } else {
                count += 1;
            }
        }
    }
    count == files.len()
        && files
            .iter()
            .all(|file| fs::read(directory.join(&file.path)).is_ok_and(|bytes| bytes == file.bytes))
}

/// Writes a small file that a container gets, such as `/etc/hosts`.
pub(crate) fn write_small(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_directory(parent, 0o755)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes everything of a pod.
pub(crate) fn remove(directories: &PodDirectories) {
    if let Ok(entries) = fs::read_dir(directories.memory.join("volumes")) {
        for entry in entries.flatten() {
            // Those that are mounts of their own; the others answer that they are none.
            let _ = unmount(entry.path(), UnmountFlags::DETACH);
        }
    }
    for directory in [&directories.memory, &directories.disk] {
        if let Err(error) = fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "a pod's directory stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            bytes: text.as_bytes().to_vec(),
            mode: 0o640,
        }
    }

    #[test]
    fn files_change_all_at_once_and_old_names_go() {
        let root = std::env::temp_dir().join(format!("kinglet-volume-{}", std::process::id()));
        let directory = root.join("v");
        write_files(&directory, &[file("a", "1"), file("d/b", "2")], None).expect("write");
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
        write_files(&directory, &[file("a", "1"), file("d/b", "2")], None).expect("write");
        assert_eq!(
            fs::read_link(directory.join(DATA_LINK)).expect("link"),
            before,
            "nothing changed"
        );
        write_files(&directory, &[file("a", "3"), file("c", "4")], None).expect("write");
        assert_eq!(fs::read_to_string(directory.join("a")).expect("file"), "3");
        assert!(!directory.join("d").exists() && directory.join("c").exists());
        assert!(!directory.join(before).exists());
        fs::remove_dir_all(root).expect("clean");
    }
}
