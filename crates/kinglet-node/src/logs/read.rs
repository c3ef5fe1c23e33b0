//! Reading a log back: the last lines, since when, with stamps, and on as it grows.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;

use crate::logs::Log;
use crate::logs::line;

/// Read from a file at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What `kubectl logs` may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which container; may be left out where there is one (or a default one).
    pub container: Option<String>,
    /// Go on as it grows.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only what was said at or after this time.
    pub since: Option<Timestamp>,
    /// Of the life before the current one.
    pub previous: bool,
    /// Put the time before every line.
    pub timestamps: bool,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// This node does not run the pod.
    #[error("pod {0:?} does not run on this node")]
    NoPod(String),
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// As asked for.
        container: String,
    },
    /// Several containers, and none was named.
    #[error("a container name must be specified for pod {pod}, choose one of: [{choices}]")]
    Ambiguous {
        /// The pod.
        pod: String,
        /// Separated by spaces.
        choices: String,
    },
    /// It has not started.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    NotStarted {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// Its waiting reason.
        reason: String,
    },
    /// There was no life before the current one.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The file.
    #[error("reading the log of container {container:?}: {why}")]
    Unreadable {
        /// The container.
        container: String,
        /// The system's answer.
        why: String,
    },
}

struct Cursor {
    log: Arc<Log>,
    /// Position in the whole log, over rotations.
    position: u64,
    partial: Vec<u8>,
    options: LogOptions,
    left: u64,
    /// The line before was cut: no stamp in the middle of it.
    inside_line: bool,
    failed: bool,
}

/// The log as a stream of bytes, as `kubectl` shows them.
pub(crate) fn stream(
    log: Arc<Log>,
    options: LogOptions,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    let position = start(&log, &options)?;
    let left = options.limit_bytes.unwrap_or(u64::MAX);
    let cursor = Cursor {
        log,
        position,
        partial: Vec::new(),
        options,
        left,
        inside_line: false,
        failed: false,
    };
    Ok(futures_util::stream::unfold(
        cursor,
        |mut cursor| async move {
            if cursor.failed {
                return None;
            }
            match cursor.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), cursor)),
                Ok(None) => None,
                Err(error) => {
                    cursor.failed = true;
                    Some((Err(error), cursor))
                }
            }
        },
    ))
}

/// Where to begin: all that is kept, or so many lines before the end.
fn start(log: &Log, options: &LogOptions) -> io::Result<u64> {
    let state = *log.state.borrow();
    let kept_from = log.oldest();
    let Some(lines) = options.tail_lines else {
        return Ok(kept_from);
    };
    // The time bound is looked at line by line; the last lines are counted from the end backwards.
    let mut missing = lines;
    let mut at = state.written;
    let mut last = true;
    while at > kept_from && missing > 0 {
        let from = at.saturating_sub(CHUNK_BYTES as u64).max(kept_from);
        let from = if at > state.rotated {
            from.max(state.rotated)
        } else {
            from
        };
        let length = usize::try_from(at - from).expect("at most a chunk");
        let (from, bytes) = log.read_at(from, length)?;
        for (offset, byte) in bytes.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The very last line end belongs to the last line.
            if std::mem::take(&mut last) {
                continue;
            }
            missing -= 1;
            if missing == 0 {
                return Ok(from + offset as u64 + 1);
            }
        }
        at = from;
    }
    Ok(if lines == 0 { state.written } else { kept_from })
}

impl Cursor {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut changes = self.log.state();
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            let state = *changes.borrow_and_update();
            if self.position < state.written {
                let bytes = self.read()?;
                let shown = self.show(&bytes);
                if !shown.is_empty() {
                    return Ok(Some(shown));
                }
                continue;
            }
            if state.ended || !self.options.follow {
                return Ok(None);
            }
            if changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        // A reader that slept through two rotations goes on with what is kept.
        let (from, bytes) = self.log.read_at(self.position, CHUNK_BYTES)?;
        self.position = if bytes.is_empty() {
            self.log.state.borrow().written
        } else {
            from + bytes.len() as u64
        };
        Ok(bytes)
    }

    /// Turns stored lines into shown ones; an incomplete last line waits.
    fn show(&mut self, bytes: &[u8]) -> Bytes {
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Bytes::new();
        };
        let whole: Vec<u8> = self.partial.drain(..=end).collect();
        let mut shown = Vec::with_capacity(whole.len());
        for stored in whole[..whole.len() - 1].split(|byte| *byte == b'\n') {
            let Some(parsed) = line::parse(stored) else {
                continue;
            };
            if let Some(since) = self.options.since
                && parsed.time().is_some_and(|time| time < since)
            {
                continue;
            }
            if self.options.timestamps && !self.inside_line {
                shown.extend_from_slice(parsed.stamp);
                shown.push(b' ');
            }
            shown.extend_from_slice(parsed.message);
            self.inside_line = !parsed.whole;
            if parsed.whole {
                shown.push(b'\n');
            }
        }
        shown.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= shown.len() as u64;
        Bytes::from(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use kinglet_process::clock::Clock;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::unix::pipe;

    struct Written {
        log: Arc<Log>,
        out: Option<pipe::Sender>,
        directory: std::path::PathBuf,
        task: tokio::task::JoinHandle<()>,
    }

    impl Written {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("kinglet-logs-{name}-{}", std::process::id()));
            let log = Arc::new(Log::create(directory.join("0.log")).expect("log"));
            let (out, stdout) = pipe::pipe().expect("pipe");
            let (_, stderr) = pipe::pipe().expect("pipe");
            let clock = Clock::simulated(Timestamp::from_second(1_000).expect("time"));
            #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts it")]
            let task = tokio::spawn(crate::logs::write::run(
                Arc::clone(&log),
                Box::new(stdout),
                Box::new(stderr),
                Arc::default(),
                clock,
            ));
            Self {
                log,
                out: Some(out),
                directory,
                task,
            }
        }

        async fn say(&mut self, text: &str) {
            self.out
                .as_mut()
                .expect("open")
                .write_all(text.as_bytes())
                .await
                .expect("pipe");
        }

        async fn end(&mut self) {
            self.out = None;
            let mut state = self.log.state();
            state.wait_for(|state| state.ended).await.expect("writer");
        }

        async fn read(&self, options: LogOptions) -> String {
            let chunks: Vec<_> = stream(Arc::clone(&self.log), options)
                .expect("stream")
                .collect()
                .await;
            chunks
                .into_iter()
                .map(|bytes| String::from_utf8_lossy(&bytes.expect("bytes")).into_owned())
                .collect()
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            self.task.abort();
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[tokio::test]
    async fn all_the_ways_to_read() {
        let mut log = Written::new("ways");
        log.say("one\ntwo\n\nfour").await;
        log.end().await;
        assert_eq!(log.read(LogOptions::default()).await, "one\ntwo\n\nfour\n");
        let tail = |lines| LogOptions {
            tail_lines: Some(lines),
            ..LogOptions::default()
        };
        assert_eq!(log.read(tail(2)).await, "\nfour\n");
        assert_eq!(log.read(tail(0)).await, "");
        assert_eq!(log.read(tail(99)).await, "one\ntwo\n\nfour\n");
        assert_eq!(
            log.read(LogOptions {
                limit_bytes: Some(5),
                ..LogOptions::default()
            })
            .await,
            "one\nt"
        );
        let stamped = log
            .read(LogOptions {
                timestamps: true,
                tail_lines: Some(1),
                ..LogOptions::default()
            })
            .await;
        assert!(
            stamped.starts_with("1970-01-01T00:16:4") && stamped.ends_with("Z four\n"),
            "{stamped}"
        );
        let later = Timestamp::from_second(2_000).expect("time");
        assert_eq!(
            log.read(LogOptions {
                since: Some(later),
                ..LogOptions::default()
            })
            .await,
            ""
        );
        assert_eq!(log.log.tail(2, 100), "\nfour");
        assert_eq!(log.log.tail(9, 3), "our");
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let mut log = Written::new("follow");
        let mut followed = Box::pin(
            stream(
                Arc::clone(&log.log),
                LogOptions {
                    follow: true,
                    ..LogOptions::default()
                },
            )
            .expect("stream"),
        );
        log.say("first\n").await;
        assert_eq!(
            followed.next().await.expect("more").expect("bytes"),
            "first\n"
        );
        log.say("second\n").await;
        assert_eq!(
            followed.next().await.expect("more").expect("bytes"),
            "second\n"
        );
        log.end().await;
        assert!(followed.next().await.is_none());
    }

    #[tokio::test]
    async fn long_lines_and_rotation_keep_what_was_said() {
        let mut log = Written::new("rotation");
        let line = "x".repeat(100_000);
        for _ in 0..150 {
            log.say(&line).await;
            log.say("\n").await;
        }
        log.end().await;
        let text = log.read(LogOptions::default()).await;
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines.len() > 100 && lines.iter().skip(1).all(|one| **one == line),
            "{}",
            lines.len()
        );
        let last = log
            .read(LogOptions {
                tail_lines: Some(1),
                ..LogOptions::default()
            })
            .await;
        assert!(!last.is_empty() && last.trim_end().bytes().all(|byte| byte == b'x'));
    }
}
