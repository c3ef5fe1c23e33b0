//! From a container's pipes into its log.

use std::sync::Arc;

use kinglet_process::clock::Clock;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::logs::line::{self, LINE_BYTES_MAX};
use crate::logs::{FILE_BYTES_MAX, Log, State};
use crate::session::Source;
use crate::session::output::{self, Output};

/// What a pipe holds at most.
const READ_BYTES: usize = 64 << 10;

/// Copies both streams until the container has closed them, and passes them on to those who are attached.
pub(crate) async fn run(
    log: Arc<Log>,
    stdout: Source,
    stderr: Source,
    output: Arc<Output>,
    clock: Clock,
) {
    if let Err(error) = copy(&log, stdout, stderr, &output, &clock).await {
        tracing::warn!(log = %log.path.display(), %error, "a container's log cannot be written; what it says is lost");
    }
    output.end();
    log.state.send_modify(|state| state.ended = true);
}

/// A stream with the line it is in the middle of.
struct Stream {
    pipe: Source,
    name: &'static str,
    buffer: Vec<u8>,
    open: bool,
}

impl Stream {
    fn new(pipe: Source, name: &'static str) -> Self {
        Self {
            pipe,
            name,
            buffer: Vec::new(),
            open: true,
        }
    }

    /// Reads what is there; cancel-safe, because what was read is in the buffer.
    async fn fill(&mut self) -> usize {
        self.buffer.reserve(READ_BYTES);
        self.pipe.read_buf(&mut self.buffer).await.unwrap_or(0)
    }

    /// What the last `count` bytes were.
    fn last(&self, count: usize) -> &[u8] {
        &self.buffer[self.buffer.len() - count..]
    }

    /// Moves whole lines (and the rest, if nothing more will come) to `to`.
    fn lines(&mut self, clock: &Clock, to: &mut Vec<u8>) {
        let now = clock.now();
        let mut start = 0;
        while let Some(end) = self.buffer[start..].iter().position(|byte| *byte == b'\n') {
            pieces(&self.buffer[start..start + end], now, self.name, true, to);
            start += end + 1;
        }
        let rest = self.buffer.len() - start;
        if rest > LINE_BYTES_MAX || (!self.open && rest > 0) {
            pieces(&self.buffer[start..], now, self.name, !self.open, to);
            start = self.buffer.len();
        }
        self.buffer.drain(..start);
        if self.buffer.is_empty() {
            // A quiet container keeps no buffer.
            self.buffer = Vec::new();
        }
    }
}

fn pieces(line: &[u8], now: jiff::Timestamp, stream: &str, whole: bool, to: &mut Vec<u8>) {
    let count = line.len().div_ceil(LINE_BYTES_MAX).max(1);
    for (index, piece) in line
        .chunks(LINE_BYTES_MAX)
        .chain(line.is_empty().then_some(&[][..]))
        .enumerate()
    {
        line::append(to, now, stream, whole && index + 1 == count, piece);
    }
}

async fn copy(
    log: &Log,
    stdout: Source,
    stderr: Source,
    output: &Output,
    clock: &Clock,
) -> std::io::Result<()> {
    let mut file = File::from_std(log.file()?);
    let (mut out, mut err) = (Stream::new(stdout, "stdout"), Stream::new(stderr, "stderr"));
    let mut batch = Vec::new();
    while out.open || err.open {
        tokio::select! {
            count = out.fill(), if out.open => {
                out.open = count > 0;
                output.send(output::Stream::Stdout, out.last(count)).await;
            }
            count = err.fill(), if err.open => {
                err.open = count > 0;
                output.send(output::Stream::Stderr, err.last(count)).await;
            }
        }
        out.lines(clock, &mut batch);
        err.lines(clock, &mut batch);
        if batch.is_empty() {
            continue;
        }
        let result = async {
            file.write_all(&batch).await?;
            file.flush().await
        };
        match result.await {
            Ok(()) => log
                .state
                .send_modify(|state| state.written += batch.len() as u64),
            // A full disk must not stop the container: its words are lost until there is room.
            Err(error) => tracing::warn!(log = %log.path.display(), %error, "log lines are lost"),
        }
        batch.clear();
        let State {
            written, rotated, ..
        } = *log.state.borrow();
        if written - rotated >= FILE_BYTES_MAX {
            file = File::from_std(log.rotate()?);
        }
    }
    Ok(())
}
