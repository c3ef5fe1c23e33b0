//! Standard input and terminals of programs: opened by helpers, given to programs in place of `/dev/null` and pipes.
//!
//! A terminal is made in the container's own `/dev/pts`; its other end goes back to Kinglet over the helper's socket.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pty::OpenptFlags;

use crate::sys::container::{HelperError, container_root, give_to_root_of_namespace};
use crate::sys::process;
use crate::wire::{self, HelperReply, Streams};

/// The multiplexer's device number: what is opened in a container must be nothing else.
const MULTIPLEXER: (u32, u32) = (5, 2);

/// Opens what the program is to read, while this process may still look at Kinglet's descriptors. `owner` is the host's id
/// of the container's root where that is another one.
pub(crate) fn open_stdin(
    streams: &Streams,
    owner: Option<u32>,
) -> Result<Option<OwnedFd>, HelperError> {
    let open = |path: &Path| -> io::Result<OwnedFd> {
        let stdin = OwnedFd::from(fs::File::open(path)?);
        if let Some(owner) = owner {
            give_to_root_of_namespace(&stdin, owner)?;
        }
        Ok(stdin)
    };
    streams
        .stdin
        .as_deref()
        .map(open)
        .transpose()
        .map_err(HelperError::setup("opening standard input"))
}

/// Gives this process the streams that its program is to have. It leads a session and sees the container's files.
pub(crate) fn connect(
    streams: &Streams,
    stdin: Option<&OwnedFd>,
    socket: &UnixStream,
) -> Result<(), HelperError> {
    if let Some(stdin) = stdin {
        process::replace_stdin(stdin).map_err(HelperError::setup("connecting standard input"))?;
    }
    if streams.terminal {
        connect_terminal(socket).map_err(HelperError::setup("opening a terminal"))?;
    }
    Ok(())
}

fn connect_terminal(socket: &UnixStream) -> io::Result<()> {
    let multiplexer = open_multiplexer()?;
    rustix::pty::unlockpt(&multiplexer)?;
    let terminal = rustix::pty::ioctl_tiocgptpeer(
        &multiplexer,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    process::replace_stdin(&terminal)?;
    process::replace_outputs(&terminal)?;
    send(socket, &HelperReply::Terminal, &multiplexer)
}

/// A privileged container may have mounted anything over its `/dev/pts`.
fn open_multiplexer() -> io::Result<OwnedFd> {
    let file = rustix::fs::openat2(
        container_root()?,
        "dev/pts/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let found = rustix::fs::fstat(&file)?;
    let number = (
        rustix::fs::major(found.st_rdev),
        rustix::fs::minor(found.st_rdev),
    );
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || number != MULTIPLEXER
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/dev/pts/ptmx of the container is no terminal multiplexer",
        ));
    }
    Ok(file)
}

/// Sends a reply and a descriptor with its first byte.
fn send(socket: &UnixStream, reply: &HelperReply, descriptor: &OwnedFd) -> io::Result<()> {
    send_with(socket, &wire::encode(reply)?, descriptor.as_fd())
}

/// Sends a descriptor with a byte that says nothing.
pub(crate) fn give(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send_with(socket, &[0], descriptor)
}

fn send_with(socket: &UnixStream, frame: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(
        socket,
        &[IoSlice::new(frame)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent == frame.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Reads bytes and the descriptor that comes with them, if one does.
pub(crate) fn receive(
    socket: impl std::os::fd::AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(all) = message {
            descriptor = all.last().or(descriptor);
        }
    }
    Ok((received.bytes, descriptor))
}
