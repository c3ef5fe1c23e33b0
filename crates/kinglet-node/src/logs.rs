//! What containers say: kept in bounded files, read back and followed.
//!
//! Flow: pipes of a container -> [`write`] -> `LOGS/<pod uid>/<container>/<attempt>.log` -> [`read`] -> `kubectl logs`.
//! Always: a log never grows beyond two files of [`FILE_BYTES_MAX`]; a slow reader never holds a container up.

pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::watch;

/// A log file is put aside when it has this many bytes; one older file is kept (a kubelet's 10 MiB).
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;

/// What stands before a message, at most.
const STAMP_BYTES: usize = 48;

/// One log: the files of one life of one container, and a bell that rings when there is more.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    state: watch::Sender<State>,
    /// Rotation and reading must not meet half way.
    rotation: Mutex<()>,
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Bytes written in all, over rotations.
    pub(crate) written: u64,
    /// Bytes of them that are in files that were put aside.
    pub(crate) rotated: u64,
    /// Nothing more will come.
    pub(crate) ended: bool,
}

impl Log {
    /// An empty log.
    pub(crate) fn create(path: PathBuf) -> std::io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, b"")?;
        Ok(Self { path, state: watch::Sender::new(State::default()), rotation: Mutex::new(()) })
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The file that was put aside.
    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    /// The last lines, without stamps, for a termination message.
    pub(crate) fn tail(&self, lines_max: usize, bytes_max: usize) -> String {
        // Stamps come on top, and the first line read may be cut.
        let read_bytes = bytes_max + lines_max * STAMP_BYTES + line::LINE_BYTES_MAX;
        let Ok(text) = tail_of(&self.path, read_bytes as u64) else { return String::new() };
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter_map(line::message).collect();
        let joined = lines[lines.len().saturating_sub(lines_max)..].join("\n");
        let mut start = joined.len().saturating_sub(bytes_max);
        while !joined.is_char_boundary(start) {
            start += 1;
        }
        joined[start..].to_owned()
    }
}

fn tail_of(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}
