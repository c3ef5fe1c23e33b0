//! Runs one more program inside a running container: exec probes and hooks.
//!
//! `node-helper exec CGROUP…` reads a [`wire::Exec`], joins every namespace of the container, forks (a pid namespace is
//! entered by children only) and ends with the program's exit code. If it is killed, the program dies with it.

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use rustix::process::Signal;
use rustix::thread::ThreadNameSpaceType;

use crate::sys::container::{HelperError, execute, identity_of, join_cgroups, take_socket};
use crate::sys::process::{self, Exit, Fork};
use crate::wire::{self, Exec};

/// Exit code when the program could not be started, as a shell has it.
const NOT_STARTED: u8 = 126;

/// The helper's `main`.
pub(crate) fn run(cgroups: &[String]) -> ExitCode {
    let Ok(mut socket) = take_socket() else {
        return ExitCode::from(NOT_STARTED);
    };
    let error = match wire::read::<Exec>(&mut socket) {
        Ok(Some(exec)) => match run_inside(&exec, cgroups) {
            Ok(exit) => return ExitCode::from(u8::try_from(exit.code()).unwrap_or(u8::MAX)),
            Err(error) => error,
        },
        Ok(None) => return ExitCode::from(NOT_STARTED),
        Err(error) => HelperError::setup("reading what to run")(error),
    };
    let _ = wire::write(&mut socket, &error.reply());
    ExitCode::from(NOT_STARTED)
}

fn run_inside(exec: &Exec, cgroups: &[String]) -> Result<Exit, HelperError> {
    join_cgroups(cgroups)?;
    let container = process::open(exec.pid).map_err(HelperError::setup("finding the container"))?;
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    rustix::thread::move_into_thread_name_spaces(container.as_fd(), all)
        .map_err(io::Error::from)
        .map_err(HelperError::setup("joining the container"))?;
    match process::fork().map_err(HelperError::setup("forking"))? {
        Fork::Parent(pid) => {
            process::wait_for(pid).map_err(HelperError::setup("waiting for the program"))
        }
        Fork::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let error = match identity_of(&exec.process)
                .and_then(|identity| execute(&exec.process, &identity))
            {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if let wire::HelperReply::Failed { message, .. } = error.reply() {
                let _ = io::Write::write_all(&mut io::stderr(), message.as_bytes());
            }
            process::exit_now(i32::from(NOT_STARTED));
        }
    }
}
