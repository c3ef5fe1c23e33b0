//! One program that runs inside a container to its end: exec probes and hooks.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::reply::receive;
use super::{Container, Containers, StartError, helper_arguments, output_pipe};
use crate::wire::{self, Exec, Process, Streams};

/// What a program inside a container wrote is complete at its end, unless it left something running that holds the pipe.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

impl Containers {
    /// Runs one program inside a container. Dropping the future kills it.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        process: Process,
        output_bytes_max: usize,
    ) -> Result<Output, StartError> {
        let (socket, theirs) = StdUnixStream::pair()?;
        container.give_to(&socket)?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let arguments = match container.0.cgroup() {
            Some(cgroup) => helper_arguments("exec", cgroup),
            None => vec!["exec".into()],
        };
        let spawner = self.spawner.clone();
        // Goes on when this future is dropped: the helper sees the socket close, kills the program, reaps it and ends; and
        // the helper, too, must be reaped by somebody.
        let ended = self.cleaning.spawn(async move {
            let helper = tokio::task::spawn_blocking(move || {
                let streams = [theirs.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
                spawner.spawn(&arguments, streams)
            });
            helper.await.map_err(io::Error::other)??.ended().await
        });
        let ended = async { ended.await.map_err(io::Error::other).flatten() };
        let mut stdout = pipe::Receiver::from_owned_fd(stdout)?;
        let mut stderr = pipe::Receiver::from_owned_fd(stderr)?;
        let order = wire::encode(&Exec {
            pid: container.0.pid,
            process,
            streams: Streams::default(),
        })?;
        if let Err(error) = socket.write_all(&order).await {
            // Why there is no helper says more than that nobody listens.
            ended.await?;
            return Err(error.into());
        }
        let (mut text, mut errors) = (Vec::new(), Vec::new());
        let (error, exit) = {
            let output = async {
                tokio::try_join!(
                    read_bounded(&mut stdout, &mut text, output_bytes_max),
                    read_bounded(&mut stderr, &mut errors, output_bytes_max),
                )
            };
            let ended = async { tokio::join!(receive(&mut socket), ended) };
            tokio::pin!(output, ended);
            tokio::select! {
                ended = &mut ended => {
                    let _ = tokio::time::timeout(LAST_OUTPUT_TIMEOUT, output).await;
                    ended
                }
                read = &mut output => {
                    read?;
                    ended.await
                }
            }
        };
        if let Some(error) = error? {
            return Err(error);
        }
        text.append(&mut errors);
        text.truncate(output_bytes_max);
        Ok(Output {
            code: exit?.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

/// Keeps the first bytes and reads the rest away, so that the program never waits for us.
async fn read_bounded(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    kept: &mut Vec<u8>,
    bytes_max: usize,
) -> io::Result<u64> {
    from.take(bytes_max as u64).read_to_end(kept).await?;
    tokio::io::copy(from, &mut tokio::io::sink()).await
}

/// The result of a program that ran inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Both streams, bounded.
    pub text: String,
}
