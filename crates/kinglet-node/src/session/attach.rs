//! A running container that clients can talk to: its input, its terminal, what it writes.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::container::{Container, StartError};
use crate::engine::Sandbox;
use crate::session::output::{Output, Stream};
use crate::session::{Input, Session, SessionError, Source, Terminal};
use crate::wire::Process;

/// What waits between a client and a container.
const BUFFER_BYTES: usize = 64 << 10;

/// A running container.
#[derive(Clone, Debug)]
pub(crate) struct RunningProgram {
    pub(crate) container: Arc<Container>,
    /// Environment, directory and user of its program.
    pub(crate) process: Process,
    pub(crate) stdin: Option<Arc<Stdin>>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) output: Arc<Output>,
    /// The namespaces of its pod.
    pub(crate) sandbox: Arc<Sandbox>,
}

/// The standard input of a container. Dropping it closes the input.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Closed after the first client (`stdinOnce`).
    once: bool,
    /// `None` once it is closed. Clients that write hold it for as long as `closed` is not cancelled.
    pipe: Mutex<Option<Arc<pipe::Sender>>>,
    closed: CancellationToken,
}

impl Stdin {
    pub(crate) fn new(pipe: pipe::Sender, once: bool) -> Self {
        Self {
            once,
            pipe: Mutex::new(Some(Arc::new(pipe))),
            closed: CancellationToken::new(),
        }
    }

    /// Carries what a client writes until it ends, or until the input is closed.
    async fn feed(&self, from: DuplexStream) {
        let Some(pipe) = self.pipe.lock().clone() else {
            return;
        };
        let carried = self.closed.run_until_cancelled(carry(from, &pipe)).await;
        let program_closed_it = carried.is_some_and(|carried| carried.is_err());
        if self.once || program_closed_it {
            self.close();
        }
    }

    /// Closes the input, also for clients that wait until the program reads.
    fn close(&self) {
        *self.pipe.lock() = None;
        self.closed.cancel();
    }
}

/// Writes what comes into the pipe. Several clients may do so at a time.
async fn carry(mut from: DuplexStream, pipe: &pipe::Sender) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            pipe.writable().await?;
            match pipe.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Closes the input of a container whose first client is gone, however it went.
struct ClosesOnce(Arc<Stdin>);

impl Drop for ClosesOnce {
    fn drop(&mut self) {
        if self.0.once {
            self.0.close();
        }
    }
}

/// A session with the container's own program.
pub(crate) fn attach(program: &RunningProgram, name: &str) -> Result<Session, SessionError> {
    let mut output = program
        .output
        .subscribe()
        .ok_or_else(|| SessionError::TooMany(name.to_owned()))?;
    let (mut stdout, client_stdout) = tokio::io::duplex(BUFFER_BYTES);
    let (mut stderr, client_stderr) = tokio::io::duplex(BUFFER_BYTES);
    let (stdin, fed): (Option<Input>, _) = match (&program.terminal, &program.stdin) {
        (Some(terminal), _) => (
            Some(Box::new(terminal.stream().map_err(StartError::from)?)),
            None,
        ),
        (None, Some(stdin)) => {
            let (client, ours) = tokio::io::duplex(BUFFER_BYTES);
            (Some(Box::new(client)), Some((Arc::clone(stdin), ours)))
        }
        (None, None) => (None, None),
    };
    let carry = async move {
        while let Some((stream, bytes)) = output.recv().await {
            let sent = match stream {
                Stream::Stdout => stdout.write_all(&bytes).await,
                Stream::Stderr => stderr.write_all(&bytes).await,
            };
            if sent.is_err() {
                break;
            }
        }
    };
    let exit = async move {
        let _closes = fed.as_ref().map(|(stdin, _)| ClosesOnce(Arc::clone(stdin)));
        let feed = async {
            if let Some((stdin, from)) = fed {
                stdin.feed(from).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = carry => {}
            () = feed => {}
        }
        Ok(0)
    };
    let has_terminal = program.terminal.is_some();
    Ok(Session {
        stdin,
        stdout: Some(Box::new(client_stdout)),
        stderr: (!has_terminal).then(|| Box::new(client_stderr) as Source),
        terminal: program.terminal.clone(),
        exit: exit.boxed(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kinglet_process::Tasks;

    use super::*;
    use crate::session::input_pipe;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_end_of_one_client_closes_an_input_that_another_waits_for() {
        let (program, pipe) = input_pipe().expect("pipe");
        let stdin = Arc::new(Stdin::new(pipe, true));
        let (mut client, ours) = tokio::io::duplex(BUFFER_BYTES);
        let fed = Arc::clone(&stdin);
        let other = Tasks::new().spawn("client", async move { fed.feed(ours).await });
        // The program reads nothing: the pipe is full, and the other client waits.
        let written = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                client.write_all(&[b'x'; 1024]).await.expect("open");
            }
        });
        written.await.expect_err("more than a pipe holds");
        drop(ClosesOnce(Arc::clone(&stdin)));
        tokio::time::timeout(PATIENCE, other)
            .await
            .expect("the other client is let go")
            .expect("it goes without a panic");
        // What was written is read, and then the end, although the input itself is still held.
        let mut program = pipe::Receiver::from_owned_fd(program).expect("receiver");
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, program.read_to_end(&mut all))
            .await
            .expect("the program sees the end of its input")
            .expect("read");
        assert!(!all.is_empty());
    }
}
