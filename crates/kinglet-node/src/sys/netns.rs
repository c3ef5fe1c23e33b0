//! Network (and ipc) namespaces, held by file descriptor so that nothing of them outlives the process.

use std::io;
use std::net::SocketAddr;
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
        Ok(rustix::net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?)
    })
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
