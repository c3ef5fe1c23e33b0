//! The files of a volume from the API: all change at once, whatever a container put in their place. Everything here blocks.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use crate::sys::beneath::Beneath;
use crate::volumes::contents::File;

/// The link that is replaced when the files of a volume change.
const DATA_LINK: &str = "..data";

/// The name under which the next link is made before it takes its place.
const NEXT_LINK: &str = "..next";

/// All at once: a new directory is filled, then the link to it replaced, then names that are new are linked.
pub(super) fn write_files(volume: &Beneath, files: &[File], group: Option<u32>) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

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
}
