//! Containers as Kinglet holds them: first a parked process, then the running program.
//!
//! Flow: [`Containers::park`] ahead of need (cgroups, namespaces) -> [`ParkedContainer::start`] -> [`Running`].
//! Always: a parked container is a child of this process (it is the subreaper) and is reaped through its own descriptor; dropping a
//! parked or a running container kills it, and with the first process its whole pid namespace.

mod exec;
mod group;
mod park;
mod reply;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

pub use exec::Output;
use group::OwnedGroup;
pub(crate) use park::{Containers, ParkedContainer};
use park::{helper_arguments, output_pipe};
pub(crate) use reply::{receive_with_descriptor, start_error};

use crate::cgroup::Cgroup;
use crate::sys::devices::DeviceProgram;
use crate::sys::process::{self, Exit};
use crate::sys::terminal;

/// Mounting and `exec` take a few milliseconds.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a container did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Namespaces, mounts or limits: this machine.
    #[error("{0}")]
    Setup(String),
    /// What the Pod asks for cannot be honoured.
    #[error("{0}")]
    Config(String),
    /// The program is missing or does not run.
    #[error("{0}")]
    Program(String),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Setup(error.to_string())
    }
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub process: Arc<Container>,
    /// Its standard output.
    pub stdout: pipe::Receiver,
    /// Its standard error.
    pub stderr: pipe::Receiver,
    /// The other end of its terminal; then it writes there and not to the pipes.
    pub terminal: Option<OwnedFd>,
}

/// The process of a running container.
#[derive(Debug)]
pub struct Container(Child);

#[derive(Debug)]
struct Child {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
    /// `None` only while it is dropped.
    group: Option<OwnedGroup>,
    devices: Arc<Option<DeviceProgram>>,
    exit: Mutex<Option<Exit>>,
}

impl Container {
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.0.cgroup()
    }

    /// Tells a helper which process it is.
    pub(crate) fn give_to(&self, helper: &StdUnixStream) -> io::Result<()> {
        terminal::give(helper, self.0.fd.get_ref().as_fd())
    }

    /// Process id on the host.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Waits for the end and reaps it.
    pub async fn wait(&self) -> Exit {
        self.0.wait().await
    }

    /// Whether it ended because its memory was used up.
    pub fn was_out_of_memory(&self) -> bool {
        self.0.cgroup().is_some_and(Cgroup::was_out_of_memory)
    }

    /// Asks it to end. The first process of a pid namespace never dies of a signal that it does not handle, so one
    /// that has no handler is killed: waiting out its grace period would help nobody.
    pub fn terminate(&self, signal: i32) -> io::Result<()> {
        if !handles_signal(self.0.pid, signal) {
            return self.kill();
        }
        match Signal::from_named_raw(signal) {
            Some(signal) => process::signal(self.0.fd.get_ref(), signal),
            None => self.kill(),
        }
    }

    /// Ends it and all its processes at once.
    pub fn kill(&self) -> io::Result<()> {
        process::signal(self.0.fd.get_ref(), Signal::KILL)
    }
}

impl Child {
    fn cgroup(&self) -> Option<&Cgroup> {
        self.group.as_ref().map(|group| &group.cgroup)
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.exit.lock().await;
        if let Some(exit) = *exit {
            return exit;
        }
        loop {
            let ready = self.fd.readable().await;
            match process::reap(self.fd.get_ref().as_fd()) {
                Ok(Some(found)) => {
                    *exit = Some(found);
                    return found;
                }
                Ok(None) => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                // Somebody else reaped it: it is gone, and nobody can know how.
                Err(_) => {
                    *exit = Some(Exit::Code(255));
                    return Exit::Code(255);
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let known = self.exit.get_mut().is_some();
        if !known {
            let _ = process::signal(self.fd.get_ref(), Signal::KILL);
        }
        let Some(group) = self.group.take() else {
            return;
        };
        let (Ok(fd), Ok(runtime)) = (
            self.fd.get_ref().try_clone(),
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        group.cleaning.clone().spawn_on(
            async move {
                if !known && let Ok(fd) = process::watch(fd) {
                    // Readable once it is dead; then it only has to be reaped.
                    let _ = fd.readable().await;
                    let _ = process::reap(fd.get_ref().as_fd());
                }
                drop(group);
            },
            &runtime,
        );
    }
}

/// Whether the process has a handler for the signal, blocks it (to fetch it by hand) or ignores it on purpose.
fn handles_signal(pid: i32, signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let mask: u64 = ["SigBlk:", "SigIgn:", "SigCgt:"]
        .iter()
        .filter_map(|field| status.lines().find_map(|line| line.strip_prefix(field)))
        .filter_map(|text| u64::from_str_radix(text.trim(), 16).ok())
        .fold(0, |all, one| all | one);
    (1..=64).contains(&signal) && mask & (1 << (signal - 1)) != 0
}
