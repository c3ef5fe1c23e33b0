//! The last steps of every program in a container, whether it is the container's own or one of [`crate::sys::exec`]: user,
//! directory, keys, privileges, `exec`. Everything here runs in a helper that sees the container's files.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::process::Signal;

use crate::sys::container::{HelperError, container_root};
use crate::sys::mount_target::{self, TargetKind};
use crate::sys::process;
use crate::sys::seccomp::Filter;
use crate::sys::user::{self, Identity};
use crate::sys::{keyring, privileges};
use crate::wire::{Process, StartErrorKind};

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
