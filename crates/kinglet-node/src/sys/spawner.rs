//! A process from which all helpers are forked.
//!
//! Flow: Kinglet starts the [sealed binary](super::binary) once as `node-helper spawner` -> [`Spawner::spawn`] sends arguments
//! and three descriptors -> the spawner forks a child of *Kinglet's* (`CLONE_PARENT`) that has them as its standard
//! streams and becomes the helper -> Kinglet reaps it.
//! To start a program of Kinglet's size, linked position-independent, takes five milliseconds of a processor and as many
//! megabytes of memory, most of it for relocations; a fork shares them.
//! Always: the spawner has one thread and no descriptors but its channel; it ends when Kinglet does, and Kinglet starts
//! another one if it should be gone.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::binary::SealedBinary;
use super::process::{self, Exit, Fork};

/// Bound of one request: a verb, and a path of at most 4 KiB for each of the thirteen controllers of version 1.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// A fork takes well under a millisecond; a spawner that is silent for so long was stopped, and is replaced.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Standard input, output and error.
const STREAMS: usize = 3;
/// Where helpers' standard streams are before they are put in their places.
type Streams = Vec<OwnedFd>;

/// The way to the spawner. Cheap to clone; the spawner ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    binary: SealedBinary,
    /// Held while a request is answered.
    process: Mutex<Option<Process>>,
}

/// The running spawner. Dropping it ends and reaps it.
#[derive(Debug)]
struct Process {
    /// `None` only while it is dropped.
    channel: Option<OwnedFd>,
    child: Child,
}

/// A helper: a child of this process that has to be reaped.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: i32,
    process: OwnedFd,
}

impl Spawner {
    /// Starts it. Blocking.
    pub(crate) fn start(binary: SealedBinary) -> io::Result<Self> {
        let process = Process::start(&binary)?;
        Ok(Self(Arc::new(Inner {
            binary,
            process: Mutex::new(Some(process)),
        })))
    }

    /// Forks a helper with these arguments (a verb first) and standard streams. Blocking, for as long as a fork takes.
    pub(crate) fn spawn(
        &self,
        arguments: &[OsString],
        streams: [BorrowedFd<'_>; STREAMS],
    ) -> io::Result<Helper> {
        let mut spawner = self.0.process.lock();
        let asked = match &*spawner {
            Some(running) => running.ask(arguments, &streams),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(_) => {
                // Somebody killed or stopped it. The old one is ended and reaped before the next one starts.
                spawner.take();
                let fresh = spawner.insert(Process::start(&self.0.binary)?);
                fresh.ask(arguments, &streams)?
            }
        };
        let pid = answer.map_err(io::Error::from_raw_os_error)?;
        let process = process::open(pid)?;
        Ok(Helper { pid, process })
    }
}

impl Process {
    fn start(binary: &SealedBinary) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&ours, direction, Some(ANSWER_TIMEOUT))?;
        }
        let child = Command::new(binary.path())
            .arg(crate::HELPER_VERB)
            .arg("spawner")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C is for Kinglet alone, which still needs helpers to stop its pods.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            channel: Some(ours),
            child,
        })
    }

    /// The helper's process id, or the error number of its fork. An error is the channel's, which is of no use afterwards: a
    /// late answer would be taken for that to another request.
    fn ask(
        &self,
        arguments: &[OsString],
        streams: &[BorrowedFd<'_>; STREAMS],
    ) -> io::Result<Result<i32, i32>> {
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        send_request(channel, arguments, streams)?;
        let mut answer = [0; size_of::<i32>()];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(channel, &mut answer, RecvFlags::empty())
        })?;
        if received.0 < answer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match i32::from_le_bytes(answer) {
            pid if pid > 0 => Ok(Ok(pid)),
            errno => Ok(Err(errno.saturating_neg())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.channel.take());
        // Also one that was stopped. Helpers are Kinglet's children, and stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Helper {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end and reaps it. Blocking.
    pub(crate) fn wait(&self) -> io::Result<()> {
        process::reap_blocking(self.process.as_fd())
    }

    /// Waits for its end and reaps it.
    pub(crate) async fn ended(self) -> io::Result<Exit> {
        let process = process::watch(self.process)?;
        loop {
            let mut ready = process.readable().await?;
            if let Some(exit) = process::reap(process.get_ref().as_fd())? {
                return Ok(exit);
            }
            ready.clear_ready();
        }
    }
}

fn send_request(
    channel: &OwnedFd,
    arguments: &[OsString],
    streams: &[BorrowedFd<'_>; STREAMS],
) -> io::Result<()> {
    let text = arguments
        .iter()
        .map(|argument| argument.as_bytes())
        .collect::<Vec<_>>()
        .join(&0);
    if text.is_empty() || text.len() > REQUEST_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(streams)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            channel,
            &[IoSlice::new(&text)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// `None` when Kinglet is gone.
fn receive_request(
    channel: &OwnedFd,
    buffer: &mut [u8],
) -> io::Result<Option<(Vec<String>, Streams)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            channel,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut streams = Streams::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    let is_whole = !received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let text = buffer.get(..received.bytes).unwrap_or_default();
    let arguments: Result<Vec<String>, _> = text
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()).into_string())
        .collect();
    match arguments {
        Ok(arguments) if is_whole && streams.len() == STREAMS => Ok(Some((arguments, streams))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The spawner's `main`: runs `become_helper` in each child.
pub(super) fn run(become_helper: impl Fn(&[String]) -> u8) -> u8 {
    let Ok(channel) = super::container::take_input() else {
        return 1;
    };
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let (arguments, streams) = match receive_request(&channel, &mut buffer) {
            Ok(Some(request)) => request,
            Ok(None) => return 0,
            Err(_) => return 1,
        };
        let answer = match process::fork_sibling() {
            Ok(Fork::Child) => {
                // Never returns: descriptors that this function owns are closed by number here.
                let code = match process::take_streams(&streams) {
                    Ok(()) => become_helper(&arguments),
                    Err(_) => 1,
                };
                process::exit_now(i32::from(code));
            }
            Ok(Fork::Parent(pid)) => pid.as_raw_nonzero().get(),
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO).saturating_neg(),
        };
        drop(streams);
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::send(&channel, &answer.to_le_bytes(), SendFlags::NOSIGNAL)
        });
        if sent.is_err() {
            return 1;
        }
    }
}
