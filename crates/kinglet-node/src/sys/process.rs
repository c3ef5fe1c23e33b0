//! Fork, and processes held by file descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The parent, with the child's process id.
    Parent(Pid),
    /// The child.
    Child,
}

/// Forks a single-threaded process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: only helper processes call this, and they have a single thread, so the child's copy of memory holds no
    // lock of another thread and may go on running any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(
            Pid::from_raw(pid).expect("fork gives a positive id to the parent"),
        )),
    }
}

/// Forks a single-threaded process; the child has the same parent as this process.
pub(crate) fn fork_sibling() -> io::Result<Fork> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack of its own and without CLONE_VM this is a fork: the child goes on with a copy of this
    // memory. There is a single thread, so no lock of another one is in that copy.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            std::ptr::null::<libc::c_void>(),
            std::ptr::null::<libc::c_void>(),
            std::ptr::null::<libc::c_void>(),
            std::ptr::null::<libc::c_void>(),
        )
    };
    match i32::try_from(answer) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(
            Pid::from_raw(pid).expect("a fork gives a positive id to the parent"),
        )),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes these descriptors the standard streams, in order, and closes all others, those that are owned further up the stack
/// included. Only a process that never returns there may call it. Kernels before 5.9 close them at its next `exec`.
pub(crate) fn take_streams(streams: &[OwnedFd]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    for (number, stream) in (0..).zip(streams) {
        // SAFETY: `stream` is open, and no value of this program owns the numbers 0 to 2, which are overwritten.
        if unsafe { libc::dup2(stream.as_raw_fd(), number) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    close_inherited()
}

/// The first descriptor after the three standard ones.
const FIRST_OTHER: libc::c_uint = 3;

/// Closes all descriptors but the standard ones: a helper inherits what the shell that started Kinglet had left open.
pub(crate) fn close_inherited() -> io::Result<()> {
    close_range(0)
}

/// Lets every descriptor but the standard ones close on `exec`.
pub(crate) fn close_on_exec() -> io::Result<()> {
    close_range(libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now. Without it the caller is a helper that has opened nothing yet, or
    // a fork that never returns to the owners of what is closed, so nobody uses a closed number.
    let answer =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST_OTHER, libc::c_uint::MAX, flags) };
    if answer == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOSYS) => close_each(),
        error => Err(error),
    }
}

/// The same for kernels before 5.9: as nothing may close here and now what is in use, all close on `exec`.
fn close_each() -> io::Result<()> {
    let open: Vec<libc::c_int> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= FIRST_OTHER.cast_signed())
        .collect();
    for number in open {
        // SAFETY: setting a flag of a descriptor touches no memory; one that is closed by now answers EBADF.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Gives every signal its default action and blocks none: what the shell that started Kinglet ignores (`nohup`: SIGHUP) is
/// inherited through every `exec`, and a program that is told to reload by that signal would never hear it.
pub(crate) fn default_signals() -> io::Result<()> {
    /// All signals of Linux, also those that the C library keeps for itself and does not let go through `signal(3)`.
    const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;
    /// What the kernel calls `struct sigaction` has at most this size; all zeroes are the default action.
    const ACTION: [u64; 4] = [0; 4];
    const NONE_BLOCKED: [u64; 1] = [0];
    for signal in SIGNALS {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads ACTION, which is as large as its structure or larger, and writes nothing; handlers of
        // this process are not called any more, and none is ours.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                ACTION.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the kernel reads one set of 64 signals and writes nothing.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            NONE_BLOCKED.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends this process at once, without running anything that the parent's copy will also run.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit touches no memory of ours and never returns.
    unsafe { libc::_exit(code) }
}

/// Makes standard input another file.
pub(crate) fn replace_stdin(with: impl AsFd) -> io::Result<()> {
    replace(with.as_fd(), libc::STDIN_FILENO)
}

/// Makes standard output and error another file.
pub(crate) fn replace_outputs(with: impl AsFd) -> io::Result<()> {
    replace(with.as_fd(), libc::STDOUT_FILENO)?;
    replace(with.as_fd(), libc::STDERR_FILENO)
}

fn replace(with: BorrowedFd<'_>, standard: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: both descriptors are open; the standard library never closes the numbers 0 to 2 by itself.
    match unsafe { libc::dup2(with.as_raw_fd(), standard) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Leaves namespaces behind for new ones.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags used here never include FILES, so no descriptor that other code owns changes its meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// A handle on a process that survives the reuse of its id.
pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Lets tokio tell when the process has ended.
pub(crate) fn watch(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives, and `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(process) }?)
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(process: impl AsFd, signal: Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The code a shell, and a kubelet, show.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Reaps a child that has ended (its descriptor is readable); `None` while it runs.
pub(crate) fn reap(process: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let Some(status) = rustix::process::waitid(
        WaitId::PidFd(process),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )?
    else {
        return Ok(None);
    };
    Ok(Some(
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Code(255),
        },
    ))
}

/// Waits until a child has ended, and reaps it.
pub(crate) fn reap_blocking(process: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(process), WaitIdOptions::EXITED)
    })?;
    Ok(())
}

/// Sends SIGKILL to a process and to all that are in its group.
pub(crate) fn kill_group(leader: Pid) {
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    let _ = rustix::process::kill_process(leader, Signal::KILL);
}

/// Children of this process that have ended and that nobody has waited for yet.
pub(crate) fn dead_children() -> Vec<i32> {
    let is_dead = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
            text.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('Z'))
        })
    };
    std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<i32>>()
        })
        .filter(is_dead)
        .collect()
}

/// Reaps a dead child, whoever started it.
pub(crate) fn reap_dead(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

/// Waits for a child of this helper.
pub(crate) fn wait_for(pid: Pid) -> io::Result<Exit> {
    let (_, status) = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
    })?
    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(255),
    })
}

#[cfg(test)]
mod tests {
    use super::{Exit, Fork, default_signals, exit_now, fork, wait_for};

    /// How the kernel acts on a signal in this process: 0 is the default, 1 is to ignore it.
    fn action_of(signal: libc::c_int) -> u64 {
        let mut action = [u64::MAX; 4];
        // SAFETY: the kernel writes its structure, which fits into four words.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                std::ptr::null::<u64>(),
                action.as_mut_ptr(),
                size_of::<u64>(),
            )
        };
        action[0]
    }

    #[test]
    fn ignored_signals_are_not_inherited() {
        // The child makes system calls only: other threads of the test program may hold any lock.
        match fork().expect("fork") {
            Fork::Parent(child) => assert_eq!(wait_for(child).expect("wait"), Exit::Code(0)),
            Fork::Child => {
                // SAFETY: no handler is set, so no code of ours can run at a wrong time.
                unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
                let ignored = action_of(libc::SIGHUP) == 1;
                let reset = default_signals().is_ok();
                let all_default = (1..=64).all(|signal| action_of(signal) == 0);
                exit_now(if ignored && reset && all_default {
                    0
                } else {
                    1
                });
            }
        }
    }
}
