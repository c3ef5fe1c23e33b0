//! A pod's user namespace, with the network and ipc namespaces that belong to it.
//!
//! A namespace belongs to the user namespace it was made in, and a program with threads cannot enter one: a helper makes
//! all three, Kinglet writes the maps and holds the namespaces by descriptor, and the helper ends.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio};

use rustix::thread::UnshareFlags;

use crate::sys::binary::SealedBinary;
use crate::sys::netns::Namespaces;
use crate::sys::process;

/// Ids of one pod: what Kubernetes gives each.
pub(crate) const IDS: u32 = 1 << 16;

/// Makes the namespaces; the pod's ids from 0 are the host's from `first_id`. Blocking: takes some milliseconds.
pub(crate) fn create(helper: &SealedBinary, first_id: u32) -> io::Result<(OwnedFd, Namespaces)> {
    let mut child = Command::new(helper.path())
        .arg(crate::HELPER_VERB)
        .arg("user-namespace")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let made = adopt(&mut child, first_id);
    // The helper ends when it reads the end of its input.
    drop(child.stdin.take());
    child.wait()?;
    made
}

fn adopt(child: &mut std::process::Child, first_id: u32) -> io::Result<(OwnedFd, Namespaces)> {
    let ready = child.stdout.as_mut().map(|output| output.read(&mut [0]));
    if !matches!(ready, Some(Ok(1))) {
        return Err(io::Error::other(
            "this kernel makes no user namespaces (see user.max_user_namespaces)",
        ));
    }
    let of_child = format!("/proc/{}", child.id());
    let map = format!("0 {first_id} {IDS}");
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("{of_child}/{file}"), &map)?;
    }
    let open = |kind: &str| File::open(format!("{of_child}/ns/{kind}")).map(OwnedFd::from);
    let namespaces = Namespaces {
        network: open("net")?,
        ipc: open("ipc")?,
    };
    Ok((open("user")?, namespaces))
}

/// The helper's `main`.
pub(crate) fn run() -> ExitCode {
    let made =
        process::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC)
            .and_then(|()| io::stdout().write_all(b"x"))
            .and_then(|()| io::stdout().flush());
    if made.is_err() {
        return ExitCode::FAILURE;
    }
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}
