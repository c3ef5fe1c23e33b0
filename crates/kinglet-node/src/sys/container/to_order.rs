//! Containers that no parked process fits: those that share the host's processes, or have a user namespace.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use super::{
    FAILURE, HelperError, Host, SUCCESS, inside_namespaces, join, join_cgroups, mounts_one_way,
    open_namespace, take_socket,
};
use crate::sys::execute::{Lifetime, execute, set_oom_score};
use crate::sys::process::{self, Fork};
use crate::sys::seccomp::Filter;
use crate::sys::{filesystem, terminal};
use crate::wire::{self, HelperReply, Start};

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
