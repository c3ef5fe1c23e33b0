//! Unpacks one layer archive into a directory that overlayfs can use as it is.
//!
//! OCI whiteouts become overlayfs ones: a `.wh.NAME` entry a 0/0 character device, `.wh..wh..opq` the
//! `trusted.overlay.opaque` attribute. Bounds hold for entries and bytes, so a bomb ends in an error.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// More entries than any sane layer (the largest seen in the wild have about 300,000).
const ENTRIES_MAX: u64 = 2_000_000;
/// Unpacked bytes of one layer.
const BYTES_MAX: u64 = 32 << 30;

/// Unpacks `archive` (tar, or tar in gzip or zstd) below `target`, which must be an empty directory.
pub fn unpack(archive: &Path, target: &Path) -> Result<(), String> {
    let file = File::open(archive).map_err(|error| format!("opening {}: {error}", archive.display()))?;
    unpack_stream(file, target)
}

/// [`unpack`] for an open file; the compression is told by its first bytes.
pub fn unpack_stream(mut file: impl Read + Seek, target: &Path) -> Result<(), String> {
    let mut magic = [0_u8; 4];
    let length = read_up_to(&mut file, &mut magic).map_err(|error| error.to_string())?;
    file.rewind().map_err(|error| error.to_string())?;
    let reader = BufReader::with_capacity(1 << 18, file);
    match &magic[..length] {
        [0x1f, 0x8b, ..] => entries(flate2::read::MultiGzDecoder::new(reader), target),
        [0x28, 0xb5, 0x2f, 0xfd] => entries(zstd::Decoder::new(reader).map_err(|error| error.to_string())?, target),
        _ => entries(reader, target),
    }
}

fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn entries(reader: impl Read, target: &Path) -> Result<(), String> {
    let target = target.canonicalize().map_err(|error| format!("{}: {error}", target.display()))?;
    let mut archive = tar::Archive::new(reader.take(BYTES_MAX));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    for (count, entry) in archive.entries().map_err(|error| error.to_string())?.enumerate() {
        if count as u64 >= ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} entries"));
        }
        let mut entry = entry.map_err(|error| format!("reading the archive: {error}"))?;
        let path = entry.path().map_err(|error| error.to_string())?.into_owned();
        let Some(relative) = inside(&path)? else { continue };
        let name = relative.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = target.join(relative.parent().unwrap_or(Path::new("")));
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let parent = checked_parent(&target, &parent)?;
            whiteout(&parent, hidden).map_err(|error| format!("whiteout {}: {error}", relative.display()))?;
            continue;
        }
        match entry.header().entry_type() {
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let parent = checked_parent(&target, &parent)?;
                special(&entry, &parent.join(&name)).map_err(|error| format!("device {}: {error}", relative.display()))?;
            }
            tar::EntryType::XGlobalHeader => {}

            
            _ => {
                let inside = entry.unpack_in(&target).map_err(|error| describe(&relative, &error))?;
                if !inside {
                    return Err(format!("entry {} leads outside of the layer", relative.display()));
                }
            }
        }
    }
    Ok(())
}

fn describe(path: &Path, error: &io::Error) -> String {
    let mut text = format!("entry {}: {error}", path.display());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The path below the root, `None` for the root itself, an error for one that climbs out.
fn inside(path: &Path) -> Result<Option<PathBuf>, String> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => relative.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(format!("entry {} leads outside of the layer", path.display())),
        }
    }
    Ok((!relative.as_os_str().is_empty()).then_some(relative))
}

/// The parent directory, made if missing, with symlinks resolved and still inside.
fn checked_parent(target: &Path, parent: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    let real = parent.canonicalize().map_err(|error| format!("{}: {error}", parent.display()))?;
    if real.starts_with(target) { Ok(real) } else { Err(format!("{} leads outside of the layer", parent.display())) }
}

fn whiteout(parent: &Path, hidden: &str) -> io::Result<()> {
    if hidden == ".wh..opq" {
        return Ok(rustix::fs::setxattr(parent, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?);
    }
    if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.starts_with(".wh.") {
        return Ok(());
    }
    let path = parent.join(hidden);
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path)?,
        Ok(_) => std::fs::remove_file(&path)?,
        Err(_) => {}
    }
    Ok(rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)?)
}

fn special(entry: &tar::Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Char => FileType::CharacterDevice,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = rustix::fs::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    match rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(header.mode()? & 0o7777), device) {
        // Images carry /dev nodes nobody sees: the container gets its own /dev.
        Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let name = &mut header.as_gnu_mut().expect("gnu").name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("append");
        }
        builder.into_inner().expect("tar")
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kinglet-layer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("scratch");
        path
    }

    #[test]
    fn plain_and_compressed() {
        let tar = tar_of(&[("a/b", "text")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &tar).expect("gzip");
        let zstd = zstd::encode_all(&tar[..], 1).expect("zstd");
        for (name, bytes) in [("tar", tar.clone()), ("gzip", gzip.finish().expect("gzip")), ("zstd", zstd)] {
            let target = scratch(name);
            unpack_stream(Cursor::new(bytes), &target).expect(name);
            assert_eq!(std::fs::read_to_string(target.join("a/b")).expect(name), "text");
            std::fs::remove_dir_all(target).expect("clean");
        }
    }

    #[test]
    fn nothing_leads_outside() {
        for path in ["../evil", "a/../../evil"] {
            let target = scratch("escape");
            let error = unpack_stream(Cursor::new(tar_of(&[(path, "x")])), &target).expect_err(path);
            assert!(error.contains("outside"), "{error}");
            std::fs::remove_dir_all(target).expect("clean");
        }
    }

    #[test]
    fn a_link_in_the_layer_does_not_lead_a_whiteout_out() {
        let target = scratch("link");
        let outside = scratch("outside");
        std::os::unix::fs::symlink(&outside, target.join("link")).expect("link");
        let error = unpack_stream(Cursor::new(tar_of(&[("link/.wh.victim", "")])), &target).expect_err("escapes");
        assert!(error.contains("outside"), "{error}");
        std::fs::remove_dir_all(target).expect("clean");
        std::fs::remove_dir_all(outside).expect("clean");
    }

    #[test]
    fn garbage_is_an_error() {
        let target = scratch("garbage");
        assert!(unpack_stream(Cursor::new(vec![7_u8; 4096]), &target).is_err());
        std::fs::remove_dir_all(target).expect("clean");
    }
}
