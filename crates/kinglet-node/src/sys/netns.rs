//! Network (and ipc) namespaces, held by file descriptor so that nothing of them outlives the process.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::sys::process::unshare;

/// The descriptors of a pod's shared namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) network: OwnedFd,
    pub(crate) ipc: OwnedFd,
}

/// Makes fresh namespaces on a thread of its own and runs `inside` there before it ends.
///
/// Blocking: takes about as long as the kernel needs to register a namespace (milliseconds).
pub(crate) fn create<R: Send>(
    inside: impl FnOnce() -> io::Result<R> + Send,
) -> io::Result<(Namespaces, R)> {
    on_own_thread(move || {
        unshare(UnshareFlags::NEWNET | UnshareFlags::NEWIPC)?;
        let network = std::fs::File::open("/proc/thread-self/ns/net")?.into();
        let ipc = std::fs::File::open("/proc/thread-self/ns/ipc")?.into();
        let result = inside()?;
        Ok((Namespaces { network, ipc }, result))
    })
}

/// Runs `inside` in a network namespace that exists. Blocking.
pub(crate) fn inside<R: Send>(
    network: impl AsFd + Send,
    inside: impl FnOnce() -> io::Result<R> + Send,
) -> io::Result<R> {
    on_own_thread(move || {
        rustix::thread::move_into_thread_name_spaces(
            network.as_fd(),
            ThreadNameSpaceType::NETWORK,
        )?;
        inside()
    })
}

/// This process's own network namespace.
pub(crate) fn current() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/self/ns/net")?.into())
}

/// A socket that lives in another network namespace; using it afterwards needs no further visit there.
pub(crate) fn stream_socket(network: impl AsFd + Send, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    on_own_thread(move || {
        rustix::thread::move_into_thread_name_spaces(
            network.as_fd(),
            ThreadNameSpaceType::NETWORK,
        )?;
        tcp_socket(family)
    })
}

/// Sockets that may wait to be made in another namespace; more ask when there is room.
const SOCKETS_WAITING_MAX: usize = 64;

/// A thread that lives in another network namespace and makes sockets there, one after the other. It ends with its handle.
#[derive(Clone, Debug)]
pub(crate) struct SocketMaker(tokio::sync::mpsc::Sender<SocketWanted>);

#[derive(Debug)]
struct SocketWanted {
    family: AddressFamily,
    reply: tokio::sync::oneshot::Sender<io::Result<OwnedFd>>,
}

impl SocketMaker {
    /// Starts the thread; fails when it cannot enter the namespace.
    pub(crate) fn start(network: OwnedFd) -> io::Result<Self> {
        let (sender, mut wanted) = tokio::sync::mpsc::channel::<SocketWanted>(SOCKETS_WAITING_MAX);
        let (entered, outcome) = std::sync::mpsc::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever asks for a socket is told by the dropped reply"
        )]
        std::thread::Builder::new()
            .name("egress".to_owned())
            .spawn(move || {
                let inside = rustix::thread::move_into_thread_name_spaces(
                    network.as_fd(),
                    ThreadNameSpaceType::NETWORK,
                )
                .map_err(io::Error::from);
                let failed = inside.is_err();
                if entered.send(inside).is_err() || failed {
                    return;
                }
                while let Some(SocketWanted { family, reply }) = wanted.blocking_recv() {
                    // Nobody waits any more: the socket closes again.
                    let _ = reply.send(tcp_socket(family));
                }
            })?;
        outcome
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the egress thread ended")))?;
        Ok(Self(sender))
    }

    /// Waits until the thread has ended, which it does with its last handle or by a fault.
    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }

    /// A fresh TCP socket of that namespace.
    pub(crate) async fn tcp(&self, v6: bool) -> io::Result<OwnedFd> {
        let (reply, made) = tokio::sync::oneshot::channel();
        let family = if v6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let gone = || io::Error::other("the egress thread has ended");
        self.0
            .send(SocketWanted { family, reply })
            .await
            .map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }
}

fn tcp_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Binds a TCP socket of this namespace that nobody will connect to: it keeps programs from listening there. A connection
/// that has just ended does not stand in the way.
pub(crate) fn reserve_tcp(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = tcp_socket(AddressFamily::INET)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

/// The same for UDP. Nothing is read from it; it holds one datagram at most.
pub(crate) fn reserve_udp(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Namespaces belong to threads, and pool threads come back: so each visit has a thread that ends with it.
fn on_own_thread<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}
