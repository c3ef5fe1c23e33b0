//! What helpers say over their socket, and what it means for a start.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;

use super::StartError;
use crate::sys::terminal;
use crate::wire::{self, HelperReply, StartErrorKind};

pub(crate) fn start_error(reply: HelperReply) -> StartError {
    match reply {
        HelperReply::Failed {
            kind: StartErrorKind::Config,
            message,
        } => StartError::Config(message),
        HelperReply::Failed {
            kind: StartErrorKind::Program,
            message,
        } => StartError::Program(message),
        HelperReply::Failed {
            kind: StartErrorKind::Setup,
            message,
        } => StartError::Setup(message),
        HelperReply::Parked { .. } | HelperReply::Terminal => {
            StartError::Setup("the helper process spoke out of turn".to_owned())
        }
    }
}

/// Waits for the socket to close; what is written before is a start error.
pub(super) async fn receive(socket: &mut UnixStream) -> Result<Option<StartError>, StartError> {
    Ok(receive_reply(socket).await?.map(start_error))
}

pub(super) async fn receive_reply(socket: &mut UnixStream) -> io::Result<Option<HelperReply>> {
    Ok(receive_with_descriptor(socket)
        .await?
        .map(|(reply, _)| reply))
}

/// Waits for a program to run (the socket closes); gives its terminal, if it has one.
pub(super) async fn receive_start(socket: &mut UnixStream) -> Result<Option<OwnedFd>, StartError> {
    let mut terminal = None;
    loop {
        match receive_with_descriptor(socket).await? {
            None => return Ok(terminal),
            Some((HelperReply::Terminal, descriptor)) => terminal = descriptor,
            Some((failed, _)) => return Err(start_error(failed)),
        }
    }
}

/// The next reply, and the descriptor that came with it; `None` when the socket is closed.
pub(crate) async fn receive_with_descriptor(
    socket: &mut UnixStream,
) -> io::Result<Option<(HelperReply, Option<OwnedFd>)>> {
    let (mut length, mut known, mut descriptor) = ([0; 4], 0, None);
    while known < length.len() {
        let received = socket
            .async_io(Interest::READABLE, || {
                terminal::receive(&*socket, &mut length[known..])
            })
            .await;
        match received {
            Ok((0, _)) => return Ok(None),
            Ok((count, with)) => {
                known += count;
                descriptor = with.or(descriptor);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut body = vec![0; wire::length_of(length)?];
    socket.read_exact(&mut body).await?;
    Ok(Some((serde_json::from_slice(&body)?, descriptor)))
}
