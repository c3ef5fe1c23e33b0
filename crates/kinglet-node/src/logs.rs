//! What containers say: kept in bounded files, read back and followed.
//!
//! Flow: pipes of a container -> [`write`] -> `LOGS/<pod uid>/<container>/<attempt>.log` -> [`read`] -> `kubectl logs`.
//! Always: a log never grows beyond two files of [`FILE_BYTES_MAX`] and is gone when nobody can read it any more; a slow reader
//! never holds a container up.

pub(crate) mod line;
pub(crate) mod proxy;
pub(crate) mod read;
pub(crate) mod write;

use std::fs::File;
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
    /// Held open, so that whoever follows a log reads it to its end even when the pod's files are gone. The lock also keeps
    /// rotation and reading apart.
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    current: File,
    /// The file that was put aside, and its length.
    older: Option<(File, u64)>,
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
        let current = fresh(&path)?;
        Ok(Self {
            path,
            state: watch::Sender::new(State::default()),
            files: Mutex::new(Files {
                current,
                older: None,
            }),
        })
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// For the writer.
    fn file(&self) -> std::io::Result<File> {
        self.files.lock().current.try_clone()
    }

    /// Puts the file aside and begins another.
    fn rotate(&self) -> std::io::Result<File> {
        let mut files = self.files.lock();
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        let next = fresh(&self.path)?;
        let length = files.current.metadata()?.len();
        files.older = Some((
            std::mem::replace(&mut files.current, next.try_clone()?),
            length,
        ));
        self.state
            .send_modify(|state| state.rotated = state.written);
        Ok(next)
    }

    /// Where the oldest byte that is kept stands in the whole log.
    fn oldest(&self) -> u64 {
        let files = self.files.lock();
        self.state
            .borrow()
            .rotated
            .saturating_sub(files.older.as_ref().map_or(0, |(_, length)| *length))
    }

    /// Bytes from a position of the whole log on: fewer where a file ends, and from what is kept where that is gone.
    fn read_at(&self, position: u64, bytes_max: usize) -> std::io::Result<(u64, Vec<u8>)> {
        use std::os::unix::fs::FileExt as _;
        let files = self.files.lock();
        let rotated = self.state.borrow().rotated;
        let (file, base) = match &files.older {
            Some((older, length)) if position < rotated => (older, rotated.saturating_sub(*length)),
            _ => (&files.current, rotated),
        };
        let position = position.max(base);
        let mut bytes = vec![0; bytes_max];
        let count = file.read_at(&mut bytes, position - base)?;
        bytes.truncate(count);
        Ok((position, bytes))
    }

    /// The last lines, without stamps, for a termination message.
    pub(crate) fn tail(&self, lines_max: usize, bytes_max: usize) -> String {
        // Stamps come on top, and the first line read may be cut.
        let read_bytes = bytes_max + lines_max * STAMP_BYTES + line::LINE_BYTES_MAX;
        let from = self
            .state
            .borrow()
            .written
            .saturating_sub(read_bytes as u64);
        let Ok((_, text)) = self.read_at(from, read_bytes) else {
            return String::new();
        };
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

/// A container that crashes for days keeps two logs, not one for each of its lives: a log's files go with the last one who
/// can read it.
impl Drop for Log {
    fn drop(&mut self) {
        for path in [self.path.clone(), self.path.with_extension("log.1")] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A new file; what lies there is taken away and not followed.
fn fresh(path: &Path) -> std::io::Result<File> {
    let _ = std::fs::remove_file(path);
    File::options()
        .create_new(true)
        .append(true)
        .read(true)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_with_the_last_reader() {
        let root = std::env::temp_dir().join(format!("kinglet-log-drop-{}", std::process::id()));
        let path = root.join("c/0.log");
        let log = std::sync::Arc::new(Log::create(path.clone()).expect("log"));
        let follower = std::sync::Arc::clone(&log);
        log.rotate().expect("rotate");
        drop(log);
        assert!(path.exists() && path.with_extension("log.1").exists());
        drop(follower);
        assert_eq!(
            std::fs::read_dir(root.join("c")).expect("folder").count(),
            0
        );
        std::fs::remove_dir_all(root).expect("clean");
    }
}
