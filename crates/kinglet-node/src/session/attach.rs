//! A running container that clients can talk to: its input, its terminal, what it writes.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::pipe;

use crate::container::Container;
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

/// The standard input of a container.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Closed after the first client (`stdinOnce`).
    once: bool,
    pipe: tokio::sync::Mutex<Option<pipe::Sender>>,
}

impl Stdin {
    pub(crate) fn new(pipe: pipe::Sender, once: bool) -> Self {
        Self {
            once,
            pipe: tokio::sync::Mutex::new(Some(pipe)),
        }
    }

    /// Carries what a client writes until it ends.
    async fn feed(&self, mut from: DuplexStream) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut pipe = self.pipe.lock().await;
            let Some(open) = pipe.as_mut() else { break };
            if open.write_all(&buffer[..count]).await.is_err() {
                // The program has closed it.
                *pipe = None;
                break;
            }
        }
        if self.once {
            *self.pipe.lock().await = None;
        }
    }
}

/// Closes the input of a container whose first client is gone, however it went.
struct ClosesOnce(Arc<Stdin>);

impl Drop for ClosesOnce {
    fn drop(&mut self) {
        if self.0.once
            && let Ok(mut pipe) = self.0.pipe.try_lock()
        {
            *pipe = None;
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
        (Some(terminal), _) => (Some(Box::new(terminal.clone())), None),
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
