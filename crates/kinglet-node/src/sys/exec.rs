//! Runs one more program inside a running container: exec probes and hooks, and `kubectl exec`.
//!
//! The helper `exec CGROUP…` is given the container's process and a [`wire::Exec`], joins every namespace of the container, forks (a pid namespace is
//! entered by children only) and ends with the program's exit code. When Kinglet closes the socket, or is gone, the helper
//! kills the program with its process group and reaps it: an orphan would be a zombie that holds up the container's end.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use crate::sys::container::{
    HelperError, become_root_of_namespace, join_cgroups, own_streams, take_socket,
};
use crate::sys::execute::{Lifetime, execute, identity_of, set_oom_score};
use crate::sys::process::{self, Exit, Fork};
use crate::sys::seccomp::Filter;
use crate::sys::terminal;
use crate::wire::{self, Exec};

/// Exit code when the program could not be started, as a shell has it.
const NOT_STARTED: u8 = 126;

/// The helper's `main`.
pub(crate) fn run(cgroups: &[String], filter: &Filter) -> u8 {
    let Ok(mut socket) = take_socket() else {
        return NOT_STARTED;
    };
    let Ok((_, Some(container))) = terminal::receive(&socket, &mut [0]) else {
        return NOT_STARTED;
    };
    let error = match wire::read::<Exec>(&mut socket) {
        Ok(Some(exec)) => match run_inside(&container, &exec, cgroups, filter, &socket) {
            Ok(exit) => return u8::try_from(exit.code()).unwrap_or(u8::MAX),
            Err(error) => error,
        },
        Ok(None) => return NOT_STARTED,
        Err(error) => HelperError::setup("reading what to run")(error),
    };
    let _ = wire::write(&mut socket, &error.reply());
    NOT_STARTED
}

/// `container` is its first process, by descriptor: one that has ended is not entered, whoever has its id now.
fn run_inside(
    container: &OwnedFd,
    exec: &Exec,
    cgroups: &[String],
    filter: &Filter,
    socket: &UnixStream,
) -> Result<Exit, HelperError> {
    join_cgroups(cgroups)?;
    set_oom_score(&exec.process)?;
    let mut all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    // What is read by its id is true if it can still be entered afterwards.
    let first_id =
        first_id_of(exec.pid).map_err(HelperError::setup("finding the user namespace"))?;
    let stdin = terminal::open_stdin(&exec.streams, first_id)?;
    if let Some(first_id) = first_id {
        own_streams(first_id);
        all |= ThreadNameSpaceType::USER;
    }
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), all)
        .map_err(io::Error::from)
        .map_err(HelperError::setup("joining the container"))?;
    if first_id.is_some() {
        become_root_of_namespace()?;
    }
    match process::fork().map_err(HelperError::setup("forking"))? {
        Fork::Parent(pid) => {
            // Whoever gave us a pipe may close its own end of it now.
            if stdin.is_some() {
                let pid = pid.as_raw_nonzero().get();
                wire::write(&mut &*socket, &wire::HelperReply::Parked { pid })
                    .map_err(HelperError::setup("reporting"))?;
            }
            drop(stdin);
            wait_or_kill(pid, socket).map_err(HelperError::setup("waiting for the program"))
        }
        Fork::Child => {
            // A group of its own, which the helper can kill as a whole.
            let _ = rustix::process::setsid();
            let attempt = || {
                let identity = identity_of(&exec.process)?;
                terminal::connect(&exec.streams, stdin.as_ref(), socket)?;
                execute(&exec.process, &identity, filter, Lifetime::OfParent)
            };
            let error = match attempt() {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let _ = wire::write(&mut &*socket, &error.reply());
            process::exit_now(i32::from(NOT_STARTED));
        }
    }
}

/// The host's id of the container's root, if it has a user namespace of its own.
fn first_id_of(pid: i32) -> io::Result<Option<u32>> {
    let of = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/user"));
    if of("self")? == of(&pid.to_string())? {
        return Ok(None);
    }
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let first = map.split_whitespace().nth(1).and_then(|id| id.parse().ok());
    first
        .map(Some)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Waits for the program's end; kills it when the other side of the socket is closed.
fn wait_or_kill(pid: Pid, socket: &UnixStream) -> io::Result<Exit> {
    let program = process::open(pid.as_raw_nonzero().get())?;
    let mut events = [
        PollFd::new(&program, PollFlags::IN),
        PollFd::new(socket, PollFlags::IN),
    ];
    loop {
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None))?;
        let [ended, hung_up] = [events[0].revents(), events[1].revents()];
        if !ended.is_empty() {
            break;
        }
        if !hung_up.is_empty() {
            process::kill_group(pid);
            break;
        }
    }
    process::wait_for(pid)
}
