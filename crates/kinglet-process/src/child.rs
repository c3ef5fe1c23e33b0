//! Processes of this program that end with it: components of the data plane beside their control plane.
//!
//! Always: each child has a thread that starts it and waits for it, so that nobody else takes its end, and the kernel ends
//! the child when that thread goes, which is when this process dies; a signal reaches that very process or nobody.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use tokio::sync::{oneshot, watch};

/// A thread that starts one program and waits for it needs little.
const STACK_BYTES: usize = 128 * 1024;

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    id: u32,
    process: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
}

/// How a child ended, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// With status 0.
    pub well: bool,
    /// `status 1`, `signal 9`.
    pub how: String,
}

impl Child {
    /// Starts `command`, in the network namespace `network` if one is given. The program must call [`end_with`].
    pub async fn spawn(mut command: Command, network: Option<OwnedFd>) -> io::Result<Self> {
        let (started, start) = oneshot::channel();
        let (ended_now, ended) = watch::channel(None);
        let work = move || {
            let begun = network
                .map_or(Ok(()), |network| {
                    move_into_thread_name_spaces(
                        std::os::fd::AsFd::as_fd(&network),
                        ThreadNameSpaceType::NETWORK,
                    )
                    .map_err(io::Error::from)
                })
                .and_then(|()| command.spawn())
                .and_then(|child| {
                    let pid = Pid::from_child(&child);
                    Ok((pidfd_open(pid, PidfdFlags::empty())?, child))
                });
            let mut child = match begun {
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
                Ok((process, child)) => {
                    // Whoever asked may be gone; then the descriptor is closed, and the child is killed below.
                    if started.send(Ok((child.id(), process))).is_err() {
                        let mut child = child;
                        let _ = child.kill();
                        let _ = child.wait();
                        return;
                    }
                    child
                }
            };
            let ended = match child.wait() {
                Ok(status) => Ended::of(status),
                Err(error) => Ended {
                    well: false,
                    how: format!("an end that nobody saw ({error})"),
                },
            };
            ended_now.send_replace(Some(ended));
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever asked for the child hears of the thread's end by the dropped channel"
        )]
        std::thread::Builder::new()
            .name("child".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)?;
        let gone = |_| io::Error::other("the thread that starts a child has ended");
        let (id, process) = start.await.map_err(gone)??;
        Ok(Self { id, process, ended })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Asks it to end in good order.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Fails when it has ended already.
        let _ = pidfd_send_signal(&self.process, signal);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(Ended::unseen),
            Err(_closed) => Ended::unseen(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => status.to_string(),
        };
        Self {
            well: status.success(),
            how,
        }
    }

    fn unseen() -> Self {
        Self {
            well: false,
            how: "an end that nobody saw".to_owned(),
        }
    }
}

/// Has the kernel end this process when the one that started it, `parent`, dies. Fails when it is dead already.
pub fn end_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == parent {
        Ok(())
    } else {
        let words = format!("process {parent}, which was to be this one's parent, has ended");
        Err(io::Error::other(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[tokio::test]
    async fn a_child_is_waited_for_and_ends_as_it_is_told() {
        let mut child = Child::spawn(shell("exit 3"), None).await.expect("a shell");
        let ended = child.ended().await;
        assert_eq!((ended.well, ended.how.as_str()), (false, "status 3"));
        let mut child = Child::spawn(shell("exec sleep 600"), None)
            .await
            .expect("a shell");
        child.terminate();
        assert_eq!(child.ended().await.how, "signal 15");
        child.kill();
        let mut missing = Command::new("/nonexistent/program");
        missing.arg("x");
        let error = Child::spawn(missing, None).await.expect_err("no program");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_child_that_nobody_holds_is_killed() {
        let child = Child::spawn(shell("exec sleep 600"), None)
            .await
            .expect("a shell");
        let mut ended = child.ended.clone();
        drop(child);
        let ended = ended
            .wait_for(Option::is_some)
            .await
            .expect("its thread")
            .clone();
        assert_eq!(ended.map(|ended| ended.how), Some("signal 9".to_owned()));
    }

    #[test]
    fn another_parent_is_noticed() {
        assert!(end_with(u32::MAX).is_err());
        rustix::process::set_parent_process_death_signal(None).expect("taken back");
    }
}
