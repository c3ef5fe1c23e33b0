//! Programs in containers that somebody talks to: `kubectl exec`, and `kubectl attach` to a container's own program.
//!
//! Flow: [`NodeHandle::exec`](crate::NodeHandle::exec) or [`NodeHandle::attach`](crate::NodeHandle::attach) -> a [`Session`] -> whoever
//! speaks the client's protocol. Always: dropping a session ends what was started for it, and never the container.

pub(crate) mod attach;
pub(crate) mod output;
mod terminal;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;

use crate::cgroup::Cgroup;
use crate::container::{
    Container, START_TIMEOUT, StartError, receive_with_descriptor, start_error,
};
use crate::engine::openable;
use crate::sys::binary::SealedBinary;
use crate::wire::{self, Exec, HelperReply, Process, Streams};

pub use terminal::Terminal;

/// What a program reads from.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// What a program writes to.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;

/// The streams of a program, and its end.
pub struct Session {
    /// Its standard input, if it reads one.
    pub stdin: Option<Input>,
    /// Its standard output, or its terminal.
    pub stdout: Option<Source>,
    /// Its standard error, unless it has a terminal.
    pub stderr: Option<Source>,
    /// Its terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// Its exit code; must be polled for the session to go on.
    pub exit: BoxFuture<'static, Result<i32, StartError>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Session")
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No such pod here.
    #[error("pod {0:?} not found")]
    NoPod(String),
    /// The container does not run.
    #[error("container not found ({0:?})")]
    NotRunning(String),
    /// Too many clients are attached already.
    #[error("container {0:?} has as many clients attached as it may have")]
    TooMany(String),
    /// The program could not be started.
    #[error("{0}")]
    Start(#[from] StartError),
}

/// A pipe into a program: what the program reads, and what is written to.
pub(crate) fn input_pipe() -> io::Result<(OwnedFd, pipe::Sender)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((read, pipe::Sender::from_owned_fd(write)?))
}

/// Programs with a terminal are told that it understands the usual sequences, unless they know better.
pub(crate) fn with_terminal_variable(process: &mut Process) {
    if !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
}

/// Starts a program inside a running container.
pub(crate) async fn open(
    helper: &SealedBinary,
    container: &Container,
    mut process: Process,
    stdin: bool,
    terminal: bool,
) -> Result<Session, StartError> {
    let (socket, theirs) = StdUnixStream::pair()?;
    container.give_to(&socket)?;
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    let input = (stdin && !terminal).then(input_pipe).transpose()?;
    if terminal {
        with_terminal_variable(&mut process);
    }
    let child = start_helper(helper, container, theirs, terminal)?;
    let order = Exec {
        pid: container.pid(),
        process,
        streams: Streams {
            stdin: input.as_ref().map(|(read, _)| openable(read)),
            terminal,
        },
    };
    let order = wire::encode(&order)?;
    let started = async {
        socket.write_all(&order).await?;
        await_start(&mut socket, &input, terminal).await
    };
    // A container that is frozen freezes helpers, too.
    let multiplexer = tokio::time::timeout(START_TIMEOUT, started)
        .await
        .unwrap_or_else(|_| {
            Err(StartError::Setup(
                "the program did not start in time".to_owned(),
            ))
        })?;
    let terminal = multiplexer.map(Terminal::new).transpose()?;
    connected(
        child,
        socket,
        terminal,
        input.map(|(_, write)| write),
        stdin,
    )
}

/// Starts the process that joins the container and runs the program.
fn start_helper(
    helper: &SealedBinary,
    container: &Container,
    socket: StdUnixStream,
    terminal: bool,
) -> io::Result<Child> {
    let outputs = || {
        if terminal {
            Stdio::null()
        } else {
            Stdio::piped()
        }
    };
    // Not killed when the future is dropped: the helper sees the socket close, kills the program and reaps it.
    tokio::process::Command::new(helper.path())
        .arg(crate::HELPER_VERB)
        .arg("exec")
        .args(
            container
                .cgroup()
                .map(Cgroup::join_files)
                .unwrap_or_default(),
        )
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(outputs())
        .stderr(outputs())
        .spawn()
}

/// The session with a program that runs: its terminal, or its pipes.
fn connected(
    mut child: Child,
    mut socket: UnixStream,
    terminal: Option<Terminal>,
    input: Option<pipe::Sender>,
    stdin: bool,
) -> Result<Session, StartError> {
    let stdin: Option<Input> = match &terminal {
        Some(terminal) if stdin => Some(Box::new(terminal.stream()?)),
        _ => input.map(|write| Box::new(write) as Input),
    };
    let stdout: Option<Source> = match &terminal {
        Some(terminal) => Some(Box::new(terminal.stream()?)),
        None => child.stdout.take().map(|stdout| Box::new(stdout) as Source),
    };
    let stderr = child.stderr.take().map(|stderr| Box::new(stderr) as Source);
    let exit = async move {
        let failed = receive_with_descriptor(&mut socket).await?;
        let status = child.wait().await?;
        match failed {
            Some((failed, _)) => Err(start_error(failed)),
            None => Ok(status.code().unwrap_or(-1)),
        }
    };
    Ok(Session {
        stdin,
        stdout,
        stderr,
        terminal,
        exit: exit.boxed(),
    })
}

/// Waits until the helper has opened the pipe or made the terminal; gives the other end of the terminal.
async fn await_start(
    socket: &mut UnixStream,
    input: &Option<(OwnedFd, pipe::Sender)>,
    terminal: bool,
) -> Result<Option<OwnedFd>, StartError> {
    let mut has_forked = input.is_none();
    let mut multiplexer = None;
    while !has_forked || (terminal && multiplexer.is_none()) {
        match receive_with_descriptor(socket).await? {
            Some((HelperReply::Parked { .. }, _)) => has_forked = true,
            Some((HelperReply::Terminal, Some(descriptor))) => multiplexer = Some(descriptor),
            Some((failed, _)) => return Err(start_error(failed)),
            None => {
                return Err(StartError::Setup(
                    "the helper process ended without a word".to_owned(),
                ));
            }
        }
    }
    Ok(multiplexer)
}
