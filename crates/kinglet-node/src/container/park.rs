//! Makes containers ahead of need: a parked process with its control group, which waits to be told what it will be.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::group::OwnedGroup;
use super::reply::{receive_reply, receive_start, start_error};
use super::{Child, Container, Running, START_TIMEOUT, StartError};
use crate::cgroup::{Cgroup, Hierarchy, Limits};
use crate::sys::binary::SealedBinary;
use crate::sys::devices::DeviceProgram;
use crate::sys::process;
use crate::sys::spawner::{Helper, Spawner};
use crate::wire::{self, HelperReply, Start};

/// Making a parked container takes about fifteen milliseconds; a machine that needs this long is stuck.
const PARK_TIMEOUT: Duration = Duration::from_secs(20);

/// A child that has been dead for this long and that nobody waited for is one that this process inherited.
const ORPHAN_AGE: Duration = Duration::from_secs(5);

/// Makes parked containers.
#[derive(Clone)]
pub(crate) struct Containers {
    helper: SealedBinary,
    pub(super) spawner: Spawner,
    hierarchy: Arc<Hierarchy>,
    devices: Arc<Option<DeviceProgram>>,
    next: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    pub(super) cleaning: TaskTracker,
}

/// A process that waits to become a container.
#[derive(Debug)]
pub(crate) struct ParkedContainer {
    child: Child,
    socket: UnixStream,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Containers {
    /// Blocking: starts the process that helpers are forked from.
    pub(crate) fn new(helper: &Path, hierarchy: Hierarchy) -> io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let helper = SealedBinary::of(helper)?;
        Ok(Self {
            spawner: Spawner::start(helper.clone())?,
            helper,
            devices: Arc::new(hierarchy.device_program()?),
            hierarchy: Arc::new(hierarchy),
            next: Arc::default(),
            closed: Arc::default(),
            cleaning: TaskTracker::new(),
        })
    }

    /// Parks one more process.
    pub(crate) async fn park(&self) -> Result<ParkedContainer, StartError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let this = self.clone();
        // Taken before it is looked whether we are closed, so that closing waits for what is made in this moment.
        let token = self.cleaning.token();
        if self.closed.load(Ordering::SeqCst) {
            return Err(StartError::Setup("the node is stopping".to_owned()));
        }
        // Not cancelled half way: a process whose id nobody has taken down could not be reaped by anybody.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let spawned = this.spawn("container", number, token)?;
            let parked = tokio::time::timeout(PARK_TIMEOUT, spawned.parked(None));
            runtime.block_on(parked).unwrap_or_else(|_| {
                Err(StartError::Setup(
                    "a parked process did not get ready in time".to_owned(),
                ))
            })
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Starts a container that no parked process fits: with a user namespace, or among the host's processes.
    pub(crate) async fn start_to_order(
        &self,
        order: impl FnOnce(&Cgroup) -> Start + Send,
        limits: &Limits,
    ) -> Result<Running, StartError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let this = self.clone();
        let token = self.cleaning.token();
        if self.closed.load(Ordering::SeqCst) {
            return Err(StartError::Setup("the node is stopping".to_owned()));
        }
        let spawned =
            tokio::task::spawn_blocking(move || this.spawn("container-to-order", number, token))
                .await
                .map_err(io::Error::other)??;
        let cgroup = &spawned.group.cgroup;
        cgroup.limit(limits)?;
        if limits.all_devices {
            cgroup.allow_all_devices(spawned.devices.as_ref().as_ref())?;
        }
        let frame = wire::encode(&order(cgroup))?;
        let started = async {
            let mut made = spawned.parked(Some(&frame)).await?;
            let terminal = receive_start(&mut made.socket).await?;
            Ok(made.running(terminal))
        };
        tokio::time::timeout(START_TIMEOUT, started)
            .await
            .unwrap_or_else(|_| Err(too_late()))
    }

    /// The program that helpers run.
    pub(crate) fn helper(&self) -> &SealedBinary {
        &self.helper
    }

    /// Where helpers come from.
    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    fn spawn(
        &self,
        verb: &'static str,
        number: u64,
        token: TaskTrackerToken,
    ) -> io::Result<Spawned> {
        let group = OwnedGroup {
            cgroup: self.hierarchy.make(&format!("c{number}"))?,
            cleaning: self.cleaning.clone(),
        };
        group
            .cgroup
            .confine_devices(self.devices.as_ref().as_ref())?;
        let (socket, theirs) = StdUnixStream::pair()?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let arguments = match verb {
            "container" => parked_arguments(&group.cgroup),
            _ => helper_arguments(verb, &group.cgroup),
        };
        let streams = [theirs.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
        let helper = self.spawner.spawn(&arguments, streams)?;
        socket.set_nonblocking(true)?;
        Ok(Spawned {
            socket,
            stdout,
            stderr,
            group,
            devices: Arc::clone(&self.devices),
            helper,
            _making: token,
        })
    }

    /// Makes no more of them, and waits until all that was dropped, or is being made now, is dead and its cgroups are gone.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.cleaning.close();
        self.cleaning.wait().await;
    }

    /// Reaps what this process inherited from helpers that were killed (it is the subreaper): a zombie would hold up the
    /// end of the pid namespace that it is in.
    pub(crate) async fn reap_orphans() {
        let mut before = Vec::new();
        loop {
            tokio::time::sleep(ORPHAN_AGE).await;
            let dead = process::dead_children();
            for child in dead.iter().filter(|child| before.contains(*child)) {
                process::reap_dead(*child);
            }
            before = dead;
        }
    }

    pub(crate) fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }
}

/// Our end does not block, the program's does.
pub(super) fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// A parked process is told its groups, and where the container will see them.
fn parked_arguments(cgroup: &Cgroup) -> Vec<OsString> {
    let views = cgroup.views().into_iter();
    std::iter::once("container".into())
        .chain(views.flat_map(|(group, at)| [group.into(), at.into()]))
        .collect()
}

pub(super) fn helper_arguments(verb: &str, cgroup: &Cgroup) -> Vec<OsString> {
    let files = cgroup.join_files().into_iter().map(OsString::from);
    std::iter::once(verb.into()).chain(files).collect()
}

struct Spawned {
    socket: StdUnixStream,
    stdout: OwnedFd,
    stderr: OwnedFd,
    group: OwnedGroup,
    devices: Arc<Option<DeviceProgram>>,
    helper: Helper,
    /// Last, so that it outlives the group: whoever closes waits until the group is in somebody's hands or gone.
    _making: TaskTrackerToken,
}

impl Spawned {
    /// Waits until the process exists. One that is made to order is told before what it will be.
    async fn parked(self, order: Option<&[u8]>) -> Result<ParkedContainer, StartError> {
        let mut socket = UnixStream::from_std(self.socket)?;
        if let Some(order) = order {
            socket.write_all(order).await?;
        }
        let pid = match receive_reply(&mut socket).await? {
            Some(HelperReply::Parked { pid }) => pid,
            Some(failed @ HelperReply::Failed { .. }) => {
                return Err(start_error(failed));
            }
            Some(HelperReply::Terminal) | None => {
                return Err(StartError::Setup(
                    "the helper process ended without a word".to_owned(),
                ));
            }
        };
        // It has forked the real process and ends by itself.
        self.helper.ended().await?;
        // Nobody else reaps it, so the id cannot have been reused.
        let child = Child {
            pid,
            fd: process::watch(process::open(pid)?)?,
            group: Some(self.group),
            devices: self.devices,
            exit: Mutex::new(None),
        };
        Ok(ParkedContainer {
            child,
            socket,
            stdout: pipe::Receiver::from_owned_fd(self.stdout)?,
            stderr: pipe::Receiver::from_owned_fd(self.stderr)?,
        })
    }
}

impl ParkedContainer {
    /// The files through which it sees its limits.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.child.cgroup()
    }

    /// Becomes the container; when this returns, the program runs.
    pub(crate) async fn start(
        mut self,
        start: &Start,
        limits: &Limits,
    ) -> Result<Running, StartError> {
        if let Some(cgroup) = self.child.cgroup() {
            cgroup.limit(limits)?;
            if limits.all_devices {
                cgroup.allow_all_devices(self.child.devices.as_ref().as_ref())?;
            }
        }
        let frame = wire::encode(start)?;
        let reply = async {
            self.socket.write_all(&frame).await?;
            receive_start(&mut self.socket).await
        };
        match tokio::time::timeout(START_TIMEOUT, reply).await {
            Ok(terminal) => Ok(self.running(terminal?)),
            Err(_) => Err(too_late()),
        }
    }

    fn running(self, terminal: Option<OwnedFd>) -> Running {
        Running {
            process: Arc::new(Container(self.child)),
            stdout: self.stdout,
            stderr: self.stderr,
            terminal,
        }
    }
}

fn too_late() -> StartError {
    StartError::Setup("the container did not start in time".to_owned())
}
