//! A parked process that becomes a container.
//!
//! The helper `container GROUP VIEW…` joins the cgroups, leaves for new mount, pid, uts and cgroup namespaces, forks the
//! namespace's first process and exits. That child builds what containers see of the kernel ([`filesystem::Ahead`]) and
//! waits on the socket at its standard input. A [`wire::Start`] makes it join the pod's namespaces, mount, drop privileges and
//! `exec`: what costs most is long done by then. The socket closes on `exec`; silence therefore means success. End of file
//! while waiting means that Kinglet is gone, and the process ends.

mod to_order;

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType, UnshareFlags};

use crate::sys::execute::{Lifetime, execute, identity_of, set_oom_score};
use crate::sys::filesystem::{Ahead, PickedUp};
use crate::sys::process::{self, Fork};
use crate::sys::seccomp::Filter;
use crate::sys::user::Identity;
use crate::sys::{filesystem, terminal};
use crate::wire::{self, HelperReply, Start, StartErrorKind};

pub(crate) use to_order::{
    become_root_of_namespace, give_to_root_of_namespace, own_streams, run_to_order,
};

/// Exit codes of a helper.
pub(crate) const SUCCESS: u8 = 0;
pub(crate) const FAILURE: u8 = 1;

/// What went wrong, and whose fault it is.
pub(crate) struct HelperError {
    pub(in crate::sys) kind: StartErrorKind,
    pub(in crate::sys) message: String,
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
    crate::spec::security::DEFAULT_CAPABILITY_NUMBERS
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

pub(crate) fn container_root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/", flags, Mode::empty())?)
}

/// A path to an open descriptor of this process, for calls that want a path.
pub(crate) fn descriptor_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
