//! Containers as Kinglet holds them: first a parked process, then the running program.
//!
//! Flow: [`Parked containers::park`] ahead of need (cgroups, namespaces) -> [`ParkedContainer::start`] -> [`Running`].
//! Always: a parked container is a child of this process (it is the subreaper) and is reaped through its own descriptor; dropping a
//! cell or a running container kills it, and with the first process its whole pid namespace.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::cgroup::{Cgroup, Hierarchy, Limits};
use crate::sys::binary::SealedBinary;
use crate::sys::devices::DeviceProgram;
use crate::sys::process::{self, Exit};
use crate::sys::spawner::{Helper, Spawner};
use crate::sys::terminal;
use crate::wire::{self, Exec, HelperReply, Process, Start, StartErrorKind, Streams};

/// Making a parked container takes about fifteen milliseconds; a machine that needs this long is stuck.
const PARK_TIMEOUT: Duration = Duration::from_secs(20);
/// Mounting and `exec` take a few milliseconds.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an emptied cgroup is tried to be removed; the kernel lets go within milliseconds, on a busy machine seconds.
const CGROUP_REMOVE_ATTEMPTS: u32 = 500;
/// What a program inside a container wrote is complete at its end, unless it left something running that holds the pipe.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
/// A child that has been dead for this long and that nobody waited for is one that this process inherited.
const ORPHAN_AGE: Duration = Duration::from_secs(5);

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

/// Makes parked containers.
#[derive(Clone)]
pub(crate) struct Containers {
    helper: SealedBinary,
    spawner: Spawner,
    hierarchy: Arc<Hierarchy>,
    devices: Arc<Option<DeviceProgram>>,
    next: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    cleaning: TaskTracker,
}

/// A container's control group. Dropping it removes the group, in the background; [`Containers::close`] waits for that.
#[derive(Debug)]
struct OwnedGroup {
    cgroup: Cgroup,
    cleaning: TaskTracker,
}

/// A process that waits to become a container.
#[derive(Debug)]
pub(crate) struct ParkedContainer {
    child: Child,
    socket: UnixStream,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
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

    /// Runs one program inside a container. Dropping the future kills it.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        process: Process,
        output_bytes_max: usize,
    ) -> Result<Output, StartError> {
        let (socket, theirs) = StdUnixStream::pair()?;
        container.give_to(&socket)?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let arguments = match container.0.cgroup() {
            Some(cgroup) => helper_arguments("exec", cgroup),
            None => vec!["exec".into()],
        };
        let spawner = self.spawner.clone();
        // Goes on when this future is dropped: the helper sees the socket close, kills the program, reaps it and ends; and
        // the helper, too, must be reaped by somebody.
        let ended = self.cleaning.spawn(async move {
            let helper = tokio::task::spawn_blocking(move || {
                let streams = [theirs.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
                spawner.spawn(&arguments, streams)
            });
            helper.await.map_err(io::Error::other)??.ended().await
        });
        let ended = async { ended.await.map_err(io::Error::other).flatten() };
        let mut stdout = pipe::Receiver::from_owned_fd(stdout)?;
        let mut stderr = pipe::Receiver::from_owned_fd(stderr)?;
        let order = wire::encode(&Exec {
            pid: container.0.pid,
            process,
            streams: Streams::default(),
        })?;
        if let Err(error) = socket.write_all(&order).await {
            // Why there is no helper says more than that nobody listens.
            ended.await?;
            return Err(error.into());
        }
        let (mut text, mut errors) = (Vec::new(), Vec::new());
        let (error, exit) = {
            let output = async {
                tokio::try_join!(
                    read_bounded(&mut stdout, &mut text, output_bytes_max),
                    read_bounded(&mut stderr, &mut errors, output_bytes_max),
                )
            };
            let ended = async { tokio::join!(receive(&mut socket), ended) };
            tokio::pin!(output, ended);
            tokio::select! {
                ended = &mut ended => {
                    let _ = tokio::time::timeout(LAST_OUTPUT_TIMEOUT, output).await;
                    ended
                }
                read = &mut output => {
                    read?;
                    ended.await
                }
            }
        };
        if let Some(error) = error? {
            return Err(error);
        }
        text.append(&mut errors);
        text.truncate(output_bytes_max);
        Ok(Output {
            code: exit?.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

/// Our end does not block, the program's does.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
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

fn helper_arguments(verb: &str, cgroup: &Cgroup) -> Vec<OsString> {
    let files = cgroup.join_files().into_iter().map(OsString::from);
    std::iter::once(verb.into()).chain(files).collect()
}

/// Keeps the first bytes and reads the rest away, so that the program never waits for us.
async fn read_bounded(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    kept: &mut Vec<u8>,
    bytes_max: usize,
) -> io::Result<u64> {
    from.take(bytes_max as u64).read_to_end(kept).await?;
    tokio::io::copy(from, &mut tokio::io::sink()).await
}

/// The result of a program that ran inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Both streams, bounded.
    pub text: String,
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

impl Drop for OwnedGroup {
    fn drop(&mut self) {
        let (cgroup, token) = (self.cgroup.clone(), self.cleaning.token());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            cgroup.remove();
            return;
        };
        runtime.spawn(async move {
            for attempt in 0..CGROUP_REMOVE_ATTEMPTS {
                if cgroup.remove() {
                    drop(token);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)) + 1)).await;
            }
            tracing::warn!("a container's control group is still in use and stays behind");
        });
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
async fn receive(socket: &mut UnixStream) -> Result<Option<StartError>, StartError> {
    Ok(receive_reply(socket).await?.map(start_error))
}

async fn receive_reply(socket: &mut UnixStream) -> io::Result<Option<HelperReply>> {
    Ok(receive_with_descriptor(socket)
        .await?
        .map(|(reply, _)| reply))
}

/// Waits for a program to run (the socket closes); gives its terminal, if it has one.
async fn receive_start(socket: &mut UnixStream) -> Result<Option<OwnedFd>, StartError> {
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
