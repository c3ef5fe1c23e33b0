//! Unpacks one layer archive into a directory that overlayfs can use as it is.
//!
//! Flow: compressed file -> bounded reader -> entries -> [`LayerTree`], which places each below the root.
//! Always: nothing is written outside of the target, whatever names and links the archive has; entries, bytes and
//! headers have bounds, so a bomb ends in an error.

mod lower;
mod tree;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use tree::LayerTree;

use crate::builtin::hex;

/// More entries than any sane layer (the largest seen in the wild have about 300,000).
const ENTRIES_MAX: u64 = 2_000_000;
/// Unpacked bytes of one layer.
const BYTES_MAX: u64 = 32 << 30;
/// Bytes of headers before one entry: names and extended attributes are read into memory.
const HEADER_BYTES_MAX: u64 = 4 << 20;

/// What came out of a layer archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed archive (OCI's DiffID); `None` when something unreadable follows the archive's end.
    pub diff_id: Option<String>,
    /// The result depends on the layers below: a directory that this layer does not list, or a hard link to a file of theirs.
    pub needs_parents: bool,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Where a layer is unpacked, and on top of what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    /// Unpacked layers, topmost first.
    pub parents: Vec<PathBuf>,
    pub cancel: Cancel,
}

/// Set by whoever does not need the result any more; reading then ends with an error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Unpacks `archive` (tar, or tar in gzip or zstd) below `target`, which must be an empty directory.
pub(crate) fn unpack(archive: &Path, target: &Path, below: &Below) -> Result<Unpacked, String> {
    let file =
        open_file(archive).map_err(|error| format!("opening {}: {error}", archive.display()))?;
    unpack_on(file, target, below)
}

/// Unpacks one layer from bytes, as the bottom layer of an image.
pub fn unpack_stream(file: impl Read + Seek, target: &Path) -> Result<Unpacked, String> {
    unpack_on(file, target, &Below::default())
}

fn unpack_on(file: impl Read + Seek, target: &Path, below: &Below) -> Result<Unpacked, String> {
    let target = target
        .canonicalize()
        .map_err(|error| format!("{}: {error}", target.display()))?;
    let mut tree = LayerTree::new(target, &below.parents)?;
    let diff_id = each(plain(file)?, &below.cancel, |relative, entry| {
        tree.write_entry(relative, entry)
    })?;
    let (needs_parents, bytes) = tree.finish();
    Ok(Unpacked {
        diff_id,
        needs_parents,
        bytes,
    })
}

/// Opens a regular file: a FIFO or device could hold us up for ever, and a directory is no archive.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let kind = std::fs::metadata(path)?.file_type();
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_file() {
        // Opened without waiting, and looked at again: the path may mean something else by now.
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        "not a file any more"
    } else {
        "a device"
    };
    Err(io::Error::other(format!(
        "it is {what}, and an archive must be a regular file"
    )))
}

/// Which members an archive has, without unpacking it: `None` for an archive without any.
pub(crate) fn members<const N: usize>(
    archive: &Path,
    names: [&str; N],
    cancel: &Cancel,
) -> Result<Option<[bool; N]>, String> {
    let file = open_file(archive).map_err(|error| error.to_string())?;
    let (mut found, mut any) = ([false; N], false);
    each(plain(file)?, cancel, |relative, _| {
        any = true;
        for (name, found) in names.iter().zip(&mut found) {
            *found |= relative == Path::new(name);
        }
        Ok(())
    })?;
    Ok(any.then_some(found))
}

/// Takes the compression away; it is reported by the first bytes.
fn plain(mut file: impl Read + Seek) -> Result<impl Read, String> {
    let mut magic = [0_u8; 4];
    let length = read_up_to(&mut file, &mut magic).map_err(|error| error.to_string())?;
    file.rewind().map_err(|error| error.to_string())?;
    let reader = BufReader::with_capacity(1 << 18, file);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Plain::Gzip(Box::new(flate2::read::MultiGzDecoder::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Plain::Zstd(zstd::Decoder::with_buffer(reader).map_err(|error| error.to_string())?)
        }
        _ => Plain::Tar(reader),
    })
}

enum Plain<R: io::BufRead> {
    Gzip(Box<flate2::read::MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
    Tar(R),
}

impl<R: io::BufRead> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
            Self::Tar(reader) => reader.read(buffer),
        }
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

/// Calls `visit` for each entry below the root; gives the digest of the whole archive.
fn each<R: Read>(
    reader: R,
    cancel: &Cancel,
    mut each_entry: impl FnMut(&Path, &mut tar::Entry<'_, Bounded<R>>) -> Result<(), String>,
) -> Result<Option<String>, String> {
    let header_left = Rc::new(Cell::new(Some(HEADER_BYTES_MAX)));
    let mut archive = tar::Archive::new(Bounded {
        reader,
        left: BYTES_MAX,
        header_left: Rc::clone(&header_left),
        hash: Sha256::new(),
        cancel: cancel.clone(),
    });
    let mut entries = archive.entries().map_err(|error| error.to_string())?;
    for count in 0_u64.. {
        header_left.set(Some(HEADER_BYTES_MAX));
        let Some(entry) = entries.next() else { break };
        header_left.set(None);
        if count >= ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} entries"));
        }
        let mut entry = entry.map_err(|error| broken(count, &error))?;
        let path = entry
            .path()
            .map_err(|error| error.to_string())?
            .into_owned();
        if let Some(relative) = inside(&path)? {
            each_entry(&relative, &mut entry)?;
        }
        // What was not wanted is read here, so that only headers lie before the next entry.
        io::copy(&mut entry, &mut io::sink())
            .map_err(|error| format!("reading entry {}: {error}", path.display()))?;
    }
    header_left.set(None);
    // The digest is over all bytes, also over those behind the archive's end.
    let mut rest = archive.into_inner();
    Ok(io::copy(&mut rest, &mut io::sink())
        .ok()
        .map(|_| format!("sha256:{}", hex(&rest.hash.finalize()))))
}

/// The library quotes what it took for a header; of a file that is no archive that is noise.
fn broken(entries_before: u64, error: &io::Error) -> String {
    let text = error.to_string();
    match text.lines().next() {
        Some(message) if entries_before > 0 || message.contains("larger than") => {
            format!("reading the archive after {entries_before} entries: {message}")
        }
        _ => "not a tar archive, or a damaged one".to_owned(),
    }
}

/// The path below the root with `.` and `..` taken away as Go's `filepath.Clean` does, `None` for the root itself, an error
/// for one that climbs out.
fn inside(path: &Path) -> Result<Option<PathBuf>, String> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => relative.push(part),
            Component::ParentDir if relative.pop() => {}
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(format!(
                    "entry {} leads outside of the layer",
                    path.display()
                ));
            }
        }
    }
    Ok((!relative.as_os_str().is_empty()).then_some(relative))
}

/// Ends in an error, not silently, when the archive or the headers of one entry are too large.
struct Bounded<R> {
    reader: R,
    left: u64,
    /// While a header is read: what is left for it.
    header_left: Rc<Cell<Option<u64>>>,
    hash: Sha256,
    cancel: Cancel,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        let read = count as u64;
        self.left = self.left.checked_sub(read).ok_or_else(|| {
            io::Error::other(format!("it is larger than {BYTES_MAX} bytes unpacked"))
        })?;
        if let Some(left) = self.header_left.get() {
            let left = left.checked_sub(read).ok_or_else(|| {
                io::Error::other(format!(
                    "an entry's headers are larger than {HEADER_BYTES_MAX} bytes"
                ))
            })?;
            self.header_left.set(Some(left));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
