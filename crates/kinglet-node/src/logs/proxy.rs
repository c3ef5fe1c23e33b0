//! The log of a queue-proxy, which this program stands in for: JSON lines, as Knative's writes them.
//!
//! The file is made when somebody writes or reads it first, since most pods' proxies never say a thing.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::logs::line::{self, LINE_BYTES_MAX};
use crate::logs::{FILE_BYTES_MAX, Log};

/// The log of one pod's queue-proxy.
#[derive(Debug)]
pub(crate) struct ProxyLog {
    path: PathBuf,
    /// The first line.
    started: String,
    log: Mutex<Option<Arc<Log>>>,
}

impl ProxyLog {
    /// `revision` is `NAMESPACE/NAME`.
    pub(crate) fn new(path: PathBuf, revision: &str, pod: &str, now: Timestamp) -> Self {
        let started = serde_json::json!({
            "severity": "INFO",
            "timestamp": now.to_string(),
            "logger": "queueproxy",
            "message": "Starting queue-proxy: Kinglet's gateway does its work",
            "knative.dev/key": revision,
            "knative.dev/pod": pod,
        });
        Self {
            path,
            started: started.to_string(),
            log: Mutex::default(),
        }
    }

    /// The log, with its first line.
    pub(crate) fn open(&self, now: Timestamp) -> std::io::Result<Arc<Log>> {
        let mut log = self.log.lock();
        if let Some(log) = &*log {
            return Ok(log.clone());
        }
        let made = Arc::new(Log::create(self.path.clone())?);
        write(&made, &self.started, now)?;
        *log = Some(made.clone());
        Ok(made)
    }

    /// Appends lines.
    pub(crate) fn append(&self, text: &str, now: Timestamp) -> std::io::Result<()> {
        let log = self.open(now)?;
        // One writer at a time, so that no line ends within another.
        let _turn = self.log.lock();
        write(&log, text, now)
    }
}

impl Drop for ProxyLog {
    /// The pod is gone: who follows the log comes to its end.
    fn drop(&mut self) {
        if let Some(log) = self.log.get_mut() {
            log.state.send_modify(|state| state.ended = true);
        }
    }
}

fn write(log: &Log, text: &str, now: Timestamp) -> std::io::Result<()> {
    let mut batch = Vec::new();
    for said in text.lines() {
        let mut pieces = said.as_bytes().chunks(LINE_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            line::append(&mut batch, now, "stdout", pieces.peek().is_none(), piece);
        }
    }
    log.file()?.write_all(&batch)?;
    log.state
        .send_modify(|state| state.written += batch.len() as u64);
    let state = *log.state.borrow();
    if state.written - state.rotated >= FILE_BYTES_MAX {
        log.rotate()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_the_first_one() {
        let folder = std::env::temp_dir().join(format!("kinglet-proxy-log-{}", std::process::id()));
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let log = ProxyLog::new(folder.join("q/0.log"), "ns/r", "p", now);
        log.append("{\"a\": 1}\n{\"b\": 2}\n", now)
            .expect("written");
        let text = std::fs::read_to_string(folder.join("q/0.log")).expect("a log");
        std::fs::remove_dir_all(&folder).expect("removed");
        let lines: Vec<_> = text
            .lines()
            .map(|line| line::parse(line.as_bytes()).expect("a line").message)
            .map(|message| serde_json::from_slice::<serde_json::Value>(message).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["knative.dev/key"], "ns/r");
        assert_eq!(
            lines[1..],
            [serde_json::json!({"a": 1}), serde_json::json!({"b": 2})]
        );
    }
}
