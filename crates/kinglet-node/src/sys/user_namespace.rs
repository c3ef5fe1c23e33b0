//! A pod's user namespace, with the network and ipc namespaces that belong to it.
//!
//! A namespace belongs to the user namespace it was made in, and a program with threads cannot enter one: a helper makes
//! all three, Kinglet writes the maps and holds the namespaces by descriptor, and the helper ends.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use crate::sys::container::{FAILURE, SUCCESS, take_socket};
use crate::sys::netns::Namespaces;
use crate::sys::process;
use crate::sys::spawner::{Helper, Spawner};

/// Ids of one pod: what Kubernetes gives each.
pub(crate) const IDS: u32 = 1 << 16;

/// Makes the namespaces; the pod's ids from 0 are the host's from `first_id`. Blocking: takes some milliseconds.
pub(crate) fn create(spawner: &Spawner, first_id: u32) -> io::Result<(OwnedFd, Namespaces)> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let streams = [theirs.as_fd(), null.as_fd(), null.as_fd()];
    let helper = spawner.spawn(&["user-namespace".into()], streams)?;
    drop(theirs);
    let made = adopt(&ours, &helper, first_id);
    // The helper ends when it reads the end of its input.
    drop(ours);
    helper.wait()?;
    made
}

fn adopt(
    mut socket: &UnixStream,
    helper: &Helper,
    first_id: u32,
) -> io::Result<(OwnedFd, Namespaces)> {
    if socket.read(&mut [0])? != 1 {
        return Err(io::Error::other(
            "this kernel makes no user namespaces (see user.max_user_namespaces)",
        ));
    }
    let of_child = format!("/proc/{}", helper.pid());
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
pub(crate) fn run() -> u8 {
    let Ok(mut socket) = take_socket() else {
        return FAILURE;
    };
    let made =
        process::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC)
            .and_then(|()| socket.write_all(b"x"));
    if made.is_err() {
        return FAILURE;
    }
    let _ = socket.read(&mut [0]);
    SUCCESS
}
