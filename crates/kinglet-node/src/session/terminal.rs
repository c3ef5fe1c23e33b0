//! The outer end of a program's terminal: one handle for its size, and a stream of its own for each reader and writer.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::process;

/// The outer end of a program's terminal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<OwnedFd>);

impl Terminal {
    pub(crate) fn new(multiplexer: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&multiplexer, true)?;
        Ok(Self(Arc::new(multiplexer)))
    }

    /// Tells the program how large its window is.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(&*self.0, size)?)
    }

    /// One more reader or writer. An [`AsyncFd`] wakes only the task that polled it last in a direction, so each reader and
    /// writer has a descriptor of its own.
    pub(crate) fn stream(&self) -> io::Result<TerminalStream> {
        Ok(TerminalStream(process::watch(self.0.try_clone()?)?))
    }
}

/// What a program writes to its terminal, and what it reads there. For one reader and one writer.
#[derive(Debug)]
pub(crate) struct TerminalStream(AsyncFd<OwnedFd>);

impl AsyncRead for TerminalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let read = ready.try_io(|terminal| {
                Ok(rustix::io::read(
                    terminal.get_ref(),
                    buffer.initialize_unfilled(),
                )?)
            });
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last program that had it open has closed it.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for TerminalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            let written =
                ready.try_io(|terminal| Ok(rustix::io::write(terminal.get_ref(), bytes)?));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// More than a terminal holds, so that every writer has to wait many times.
    const BYTES: usize = 64 << 10;
    const WRITERS: usize = 4;

    /// The outer end of a terminal, and the program's end.
    fn pair() -> (Terminal, OwnedFd) {
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&outer).expect("granted");
        unlockpt(&outer).expect("unlocked");
        let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .expect("the program's end");
        let mut raw = tcgetattr(&inner).expect("settings");
        raw.make_raw();
        tcsetattr(&inner, OptionalActions::Now, &raw).expect("raw");
        (Terminal::new(outer).expect("terminal"), inner)
    }

    #[tokio::test]
    async fn every_writer_that_waits_is_woken() {
        let (terminal, inner) = pair();
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            let mut stream = terminal.stream().expect("stream");
            writers.spawn(async move { stream.write_all(&[b'x'; BYTES]).await });
        }
        // All of them wait before anything is read.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let program = Terminal::new(inner).expect("the program's end");
        let mut program = program.stream().expect("stream");
        let mut read = vec![0; WRITERS * BYTES];
        tokio::time::timeout(Duration::from_secs(60), program.read_exact(&mut read))
            .await
            .expect("a writer is never woken")
            .expect("read");
        while let Some(written) = writers.join_next().await {
            written.expect("a writer").expect("written");
        }
    }
}
