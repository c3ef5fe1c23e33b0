//! A parked process that becomes a container.
//!
//! The helper `container GROUP VIEW…` joins the cgroups, leaves for new mount, pid, uts and cgroup namespaces, forks the
//! namespace's first process and exits. That child builds what containers see of the kernel ([`filesystem::Ahead`]) and
//! waits on the socket at its standard input. A [`wire::Start`] makes it join the pod's namespaces, mount, drop privileges and
//! `exec`: what costs most is long done by then. The socket closes on `exec`; silence therefore means success. End of file
//! while waiting means that Kinglet is gone, and the process ends.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, ThreadNameSpaceType, UnshareFlags};

use crate::sys::filesystem::{Ahead, PickedUp};
use crate::sys::mount_target::{self, TargetKind};
use crate::sys::process::{self, Fork};
use crate::sys::seccomp::Filter;
use crate::sys::user::{self, Identity};
use crate::sys::{filesystem, keyring, privileges, terminal};
use crate::wire::{self, HelperReply, Process, Start, StartErrorKind};

/// Exit codes of a helper.
pub(crate) const SUCCESS: u8 = 0;
pub(crate) const FAILURE: u8 = 1;

/// What went wrong, and whose fault it is.
pub(crate) struct HelperError {
    kind: StartErrorKind,
    message: String,
}

impl HelperError {
    pub(crate) fn setup(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        move |error| Self {
            kind: StartErrorKind::Setup,
            message: format!("{what}: {error}"),
        }
    }

    pub(crate) fn reply(self) -> HelperReply {
        HelperReply::Failed {
            kind: self.kind,
            message: self.message,
        }
    }
}

/// The helper's `main`. `filter` is what most containers need; one that keeps other capabilities has its filter compiled
/// at the start.
pub(crate) fn run(arguments: &[String], filter: &Filter) -> u8 {
    let Ok(mut socket) = take_socket() else {
        return FAILURE;
    };
    // Each group, and where the container sees it.
    let (groups, _) = arguments.as_chunks::<2>();
    let cgroups: Vec<(PathBuf, PathBuf)> = groups
        .iter()
        .map(|[group, view]| (PathBuf::from(group), PathBuf::from(view)))
        .collect();
    match park(&cgroups) {
        Ok(Fork::Parent(pid)) => match wire::write(
            &mut socket,
            &HelperReply::Parked {
                pid: pid.as_raw_nonzero().get(),
            },
        ) {
            Ok(()) => SUCCESS,
            Err(_) => FAILURE,
        },
        Ok(Fork::Child) => {
            // Without it a start builds everything, and says what is wrong.
            let ahead = Ahead::build(&cgroups).ok();
            let error = match wire::read::<Start>(&mut socket) {
                Ok(Some(start)) => become_container(&start, filter, ahead, &socket),
                Ok(None) => return SUCCESS,
                Err(error) => HelperError::setup("reading what to start")(error),
            };
            // If nobody listens any more there is nobody to tell.
            let _ = wire::write(&mut socket, &error.reply());
            FAILURE
        }
        Err(error) => {
            let _ = wire::write(&mut socket, &error.reply());
            FAILURE
        }
    }
}

/// Moves the socket away from standard input, which becomes `/dev/null`, and lets it close on `exec`.
pub(crate) fn take_socket() -> io::Result<UnixStream> {
    take_input().map(UnixStream::from)
}

/// The same for any descriptor.
pub(crate) fn take_input() -> io::Result<OwnedFd> {
    let input = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    process::replace_stdin(&null)?;
    Ok(input)
}

/// The helper's `main` for containers that no parked process fits: those that share the host's processes, or have a user
/// namespace. It is told first what to start, and makes the namespaces for it.
pub(crate) fn run_to_order(cgroups: &[String], filter: &Filter) -> u8 {
    let Ok(mut socket) = take_socket() else {
        return FAILURE;
    };
    let outcome = match wire::read::<Start>(&mut socket) {
        Ok(Some(start)) => start_to_order(&start, cgroups, filter, &mut socket),
        Ok(None) => return SUCCESS,
        Err(error) => Err(HelperError::setup("reading what to start")(error)),
    };
    match outcome {
        Ok(()) => SUCCESS,
        Err(error) => {
            let _ = wire::write(&mut socket, &error.reply());
            FAILURE
        }
    }
}

/// In the child this returns only if it could not be done.
fn start_to_order(
    start: &Start,
    cgroups: &[String],
    filter: &Filter,
    socket: &mut UnixStream,
) -> Result<(), HelperError> {
    join_cgroups(cgroups)?;
    set_oom_score(&start.process)?;
    process::unshare(UnshareFlags::NEWNS).map_err(HelperError::setup("making namespaces"))?;
    mounts_one_way()?;
    let first_id = start.user_namespace.as_ref().map(|user| user.first_id);
    // Opened while this process may still look at ours.
    let stdin = terminal::open_stdin(&start.streams, first_id)?;
    let network = open_namespace(&start.network_namespace)?;
    let ipc = open_namespace(&start.ipc_namespace)?;
    let pids = start
        .pid_namespace
        .as_deref()
        .map(open_namespace)
        .transpose()?;
    let mut flags = UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if pids.is_none() {
        flags |= UnshareFlags::NEWPID;
    }
    let picked_up = match &start.user_namespace {
        None => None,
        Some(wanted) => {
            let user = open_namespace(&wanted.path)?;
            let picked_up = filesystem::prepare_mapped(start, &user, wanted.first_id)?;
            own_streams(wanted.first_id);
            join(&user, ThreadNameSpaceType::USER, "the user namespace")?;
            become_root_of_namespace()?;
            flags |= UnshareFlags::NEWNS;
            Some(picked_up)
        }
    };
    process::unshare(flags).map_err(HelperError::setup("making namespaces"))?;
    join(&network, ThreadNameSpaceType::NETWORK, "the network")?;
    let kind = ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    join(&ipc, kind, "the ipc namespace")?;
    if let Some(pids) = &pids {
        join(pids, ThreadNameSpaceType::PROCESS_ID, "the pid namespace")?;
    }
    match process::fork().map_err(HelperError::setup("forking"))? {
        Fork::Parent(pid) => {
            let pid = pid.as_raw_nonzero().get();
            wire::write(socket, &HelperReply::Parked { pid })
                .map_err(HelperError::setup("reporting"))
        }
        Fork::Child => {
            let attempt = || {
                let host = picked_up.map_or(Host::InSight(None), Host::PickedUp);
                let identity = inside_namespaces(start, host)?;
                terminal::connect(&start.streams, stdin.as_ref(), socket)?;
                execute(&start.process, &identity, filter, Lifetime::OfItself)
            };
            let error = match attempt() {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let _ = wire::write(socket, &error.reply());
            process::exit_now(1);
        }
    }
}

/// The root of a user namespace is nobody until it says that it is 0.
pub(crate) fn become_root_of_namespace() -> Result<(), HelperError> {
    let (user, group) = (
        rustix::process::Uid::from_raw(0),
        rustix::process::Gid::from_raw(0),
    );
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
        .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user))
        .map_err(io::Error::from)
        .map_err(HelperError::setup("becoming root of the user namespace"))
}

/// Gives the output pipes to the root of a user namespace, who passes them on.
pub(crate) fn own_streams(id: u32) {
    let _ = give_to_root_of_namespace(io::stdout(), id);
    let _ = give_to_root_of_namespace(io::stderr(), id);
}

/// The group too: the root of a user namespace may pass on only what has both ids in it.
pub(crate) fn give_to_root_of_namespace(stream: impl std::os::fd::AsFd, id: u32) -> io::Result<()> {
    let owner = rustix::process::Uid::from_raw(id);
    let group = rustix::process::Gid::from_raw(id);
    Ok(rustix::fs::fchown(stream, Some(owner), Some(group))?)
}

fn open_namespace(path: &Path) -> Result<OwnedFd, HelperError> {
    fs::File::open(path)
        .map(OwnedFd::from)
        .map_err(HelperError::setup(format_args!(
            "opening namespace {}",
            path.display()
        )))
}

fn join(namespace: &OwnedFd, kind: ThreadNameSpaceType, what: &str) -> Result<(), HelperError> {
    rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), kind)
        .map_err(io::Error::from)
        .map_err(HelperError::setup(format_args!("joining {what}")))
}

fn park(cgroups: &[(PathBuf, PathBuf)]) -> Result<Fork, HelperError> {
    for (group, _) in cgroups {
        join_cgroup(&group.join("cgroup.procs"))?;
    }
    // The ipc namespace is the pod's, which nobody knows yet.
    process::unshare(
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP,
    )
    .map_err(HelperError::setup("making namespaces"))?;
    mounts_one_way()?;
    process::fork().map_err(HelperError::setup("forking"))
}

/// Not private: volumes in memory that the node mounts while this process is parked must show up here.
fn mounts_one_way() -> Result<(), HelperError> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
    )
    .map_err(io::Error::from)
    .map_err(HelperError::setup("making mounts one-way"))
}

/// Joins the cgroups whose `cgroup.procs` files are named.
pub(crate) fn join_cgroups(cgroups: &[String]) -> Result<(), HelperError> {
    cgroups
        .iter()
        .try_for_each(|file| join_cgroup(Path::new(file)))
}

fn join_cgroup(file: &Path) -> Result<(), HelperError> {
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut procs| procs.write_all(b"0"))
        .map_err(HelperError::setup(format_args!(
            "joining cgroup {}",
            file.display()
        )))
}

/// Returns only if it could not be done.
fn become_container(
    start: &Start,
    filter: &Filter,
    ahead: Option<Ahead>,
    socket: &UnixStream,
) -> HelperError {
    let attempt = || {
        let stdin = terminal::open_stdin(&start.streams, None)?;
        let identity = prepare(start, ahead)?;
        terminal::connect(&start.streams, stdin.as_ref(), socket)?;
        execute(&start.process, &identity, filter, Lifetime::OfItself)
    };
    match attempt() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The capabilities of a container that says nothing about them.
pub(crate) fn default_capabilities() -> CapabilitySet {
    crate::spec::container::DEFAULT_CAPABILITY_NUMBERS
        .iter()
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .collect()
}

fn prepare(start: &Start, ahead: Option<Ahead>) -> Result<Identity, HelperError> {
    let network = open_namespace(&start.network_namespace)?;
    let ipc = open_namespace(&start.ipc_namespace)?;
    join(&network, ThreadNameSpaceType::NETWORK, "the network")?;
    let kind = ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    join(&ipc, kind, "the ipc namespace")?;
    set_oom_score(&start.process)?;
    let ahead = ahead.filter(|_| Ahead::fits(&start.isolation));
    inside_namespaces(start, Host::InSight(ahead))
}

/// What a container gets from the host.
enum Host {
    /// It can be picked up still; some of it may have been built ahead.
    InSight(Option<Ahead>),
    /// It was picked up before the user namespace was entered.
    PickedUp(PickedUp),
}

/// Everything from the host's name to the user, in the container's namespaces.
fn inside_namespaces(start: &Start, host: Host) -> Result<Identity, HelperError> {
    rustix::system::sethostname(start.hostname.as_bytes())
        .map_err(io::Error::from)
        .map_err(HelperError::setup(format_args!(
            "naming the host {}",
            start.hostname
        )))?;
    for (name, value) in &start.isolation.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(HelperError::setup(format_args!(
            "setting {name} to {value}"
        )))?;
    }
    match host {
        Host::PickedUp(picked_up) => filesystem::enter_mapped(start, &picked_up)?,
        Host::InSight(ahead) => filesystem::enter(start, ahead.as_ref())?,
    }
    let _ = rustix::process::setsid();
    identity_of(&start.process)
}

/// A container is killed before Kinglet (whose own score this process has inherited), whatever its pod may claim. Must be
/// done while `/proc` is the host's.
pub(crate) fn set_oom_score(process: &Process) -> Result<(), HelperError> {
    const MAX: i32 = 1000;
    let file = "/proc/self/oom_score_adj";
    fs::read_to_string(file)
        .map(|text| text.trim().parse::<i32>().unwrap_or(0))
        .and_then(|of_kinglet| {
            let score = process.oom_score_adj.max(of_kinglet + 1).min(MAX);
            fs::write(file, score.to_string())
        })
        .map_err(HelperError::setup("setting the out-of-memory score"))
}

/// Looks the user up in the container's files; the container's root is `/` by now.
pub(crate) fn identity_of(process: &Process) -> Result<Identity, HelperError> {
    let passwd = account_file("/etc/passwd");
    let group = account_file("/etc/group");
    user::identify(&process.user, &passwd, &group).map_err(|message| HelperError {
        kind: StartErrorKind::Config,
        message,
    })
}

/// A missing, unreadable or strange file is an empty one: images from scratch have none, and a tenant may have put a pipe
/// or a link in its place.
fn account_file(path: &str) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    let open = || -> io::Result<fs::File> {
        let root = container_root()?;
        let file = rustix::fs::openat2(
            &root,
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(fs::File::from(file)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    };
    if let Ok(file) = open() {
        let _ = file
            .take(user::ACCOUNT_FILE_BYTES_MAX)
            .read_to_string(&mut text);
    }
    text
}

pub(crate) fn container_root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/", flags, Mode::empty())?)
}

/// Enters the working directory, which is made if it is missing. It is found below the container's root name by name: a
/// path through `/proc` must not lead to what this process has open.
fn enter_directory(process: &Process) -> Result<(), HelperError> {
    let directory = working_directory(process)?;
    rustix::process::fchdir(&directory)
        .map_err(io::Error::from)
        .map_err(directory_error(process))
}

/// Opens the working directory, and makes it if it is missing.
pub(crate) fn working_directory(process: &Process) -> Result<OwnedFd, HelperError> {
    container_root()
        .and_then(|root| mount_target::open(&root, &process.directory, TargetKind::Directory))
        .map_err(directory_error(process))
}

fn directory_error(process: &Process) -> impl FnOnce(io::Error) -> HelperError {
    let directory = process.directory.display().to_string();
    move |error| program(format!("working directory {directory}: {error}"))
}

/// How long a program lives at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until it ends.
    OfItself,
    /// Until the helper that started it ends.
    OfParent,
}

/// The very last steps, shared with [`crate::sys::exec`]: directory, standard streams, keys, privileges, program.
pub(crate) fn execute(
    what: &Process,
    identity: &Identity,
    filter: &Filter,
    lifetime: Lifetime,
) -> Result<std::convert::Infallible, HelperError> {
    process::default_signals().map_err(HelperError::setup("resetting signals"))?;
    let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_directory(what)?;
    // Programs that reopen /dev/stdout need to own the pipe behind it.
    let owner = rustix::process::Uid::from_raw(identity.uid);
    let _ = rustix::fs::fchown(io::stdout(), Some(owner), None);
    let _ = rustix::fs::fchown(io::stderr(), Some(owner), None);
    if has_pipe_or_terminal_as_stdin() {
        let _ = rustix::fs::fchown(io::stdin(), Some(owner), None);
    }
    keyring::leave_session().map_err(HelperError::setup("making a session keyring"))?;
    let mut env: Vec<(&str, &str)> = what
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .collect();
    if !env.iter().any(|(name, _)| *name == "HOME") {
        env.push(("HOME", &identity.home));
    }
    privileges::drop_to(what, identity, filter)
        .map_err(HelperError::setup("dropping privileges"))?;
    if lifetime == Lifetime::OfParent {
        // Only now: a change of user takes the wish away.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(io::Error::from)
            .map_err(HelperError::setup("tying the program to its helper"))?;
    }
    let path = env
        .iter()
        .rev()
        .find(|(name, _)| *name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let (name, arguments) = what
        .argv
        .split_first()
        .ok_or_else(|| program("no command specified".to_owned()))?;
    let file = find_program(name, path).map_err(program)?;
    process::close_on_exec().map_err(HelperError::setup("closing descriptors"))?;
    let error = Command::new(&file)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(env)
        .exec();
    Err(program(format!("exec: {:?}: {}", name, describe(&error))))
}

/// Anything else is `/dev/null` of the host, which keeps its owner.
fn has_pipe_or_terminal_as_stdin() -> bool {
    rustix::termios::isatty(io::stdin())
        || rustix::fs::fstat(io::stdin())
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}

/// Where programs are looked for when the environment does not say.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn program(message: String) -> HelperError {
    HelperError {
        kind: StartErrorKind::Program,
        message,
    }
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

fn find_program(name: &str, path: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt as _;
    if name.contains('/') {
        return match fs::metadata(name) {
            Ok(found) if found.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(_) => Ok(PathBuf::from(name)),
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", describe(&error))),
        };
    }
    path.split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

/// A path to an open descriptor of this process, for calls that want a path.
pub(crate) fn descriptor_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
