//! What Kinglet and its single-threaded helper processes say to each other over a socket pair.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON, at most [`FRAME_BYTES_MAX`].

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bound of one frame: an environment of the size that `execve` takes, with room for the mounts.
pub(crate) const FRAME_BYTES_MAX: usize = 4 << 20;

/// From helper to Kinglet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelperReply {
    /// The parked process exists and waits; its process id as Kinglet sees it.
    Parked { pid: i32 },
    /// The program has a terminal; its other end comes with this.
    Terminal,
    /// It could not be done; the process is gone or about to go.
    Failed {
        kind: StartErrorKind,
        message: String,
    },
}

/// What a start error is about: decides the waiting reason that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartErrorKind {
    /// Mounts, namespaces, limits: ours or the machine's.
    Setup,
    /// The container's configuration cannot be honoured (unknown user, root where forbidden).
    Config,
    /// The program is missing or cannot be executed.
    Program,
}

/// Turns a parked process into a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Paths through which the pod's network and ipc namespaces can be opened.
    pub network_namespace: PathBuf,
    pub ipc_namespace: PathBuf,
    /// The pid namespace to join instead of a new one.
    pub pid_namespace: Option<PathBuf>,
    pub user_namespace: Option<UserNamespace>,
    pub hostname: String,
    pub root: Root,
    /// In the order they must be mounted.
    pub mounts: Vec<Mount>,
    /// Host directory of a cgroup and where the container sees it.
    pub cgroups: Vec<(PathBuf, PathBuf)>,
    pub read_only_root: bool,
    pub isolation: Isolation,
    pub process: Process,
    pub streams: Streams,
}

/// What a program reads, and whether it has a terminal. Without either it reads nothing and writes to pipes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// A path through which the pipe can be opened that is its standard input.
    pub stdin: Option<PathBuf>,
    /// All three streams are one terminal.
    pub terminal: bool,
}

/// The user namespace of a pod that has one: its ids from 0 are these of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// A path through which it can be opened.
    pub path: PathBuf,
    /// The host's id of the pod's root.
    pub first_id: u32,
}

/// How far a container is kept apart from the host beyond its namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// It has the host's devices, may write to `/sys`, and its volumes keep set-user-id programs and devices.
    pub privileged: bool,
    /// `/proc` without the paths that are hidden or read-only (`procMount: Unmasked`).
    pub unmasked_proc: bool,
    /// It sees the processes of the host (`hostPID`).
    pub host_pid: bool,
    /// It shares System V IPC, message queues and `/dev/shm` with the host (`hostIPC`).
    pub host_ipc: bool,
    /// Kernel parameters of the pod's namespaces: name with dots, and value.
    pub sysctls: Vec<(String, String)>,
}

/// The overlay that becomes `/`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Holds `rootfs`, `upper` and `work`.
    pub directory: PathBuf,
    /// Topmost first.
    pub layers: Vec<PathBuf>,
}

/// One thing mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A file or directory of the host, or `sub_path` inside it.
    Bind {
        source: PathBuf,
        sub_path: Option<PathBuf>,
        target: PathBuf,
        read_only: bool,
        /// Device nodes and setuid programs in it work: a path of the host that an admin gave.
        allow_devices: bool,
    },
    /// Memory with an optional bound.
    Memory {
        target: PathBuf,
        bytes_max: Option<u64>,
    },
    /// A directory that the image declares as a volume: writable, also below a read-only root.
    ImageVolume { target: PathBuf },
}

impl Mount {
    pub(crate) fn target(&self) -> &PathBuf {
        match self {
            Self::Bind { target, .. }
            | Self::Memory { target, .. }
            | Self::ImageVolume { target } => target,
        }
    }
}

/// Joins a running container and runs one program in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The container's first process.
    pub pid: i32,
    pub process: Process,
    pub streams: Streams,
}

/// A program with everything that surrounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub directory: PathBuf,
    pub user: User,
    /// Capability numbers that remain.
    pub capabilities: Vec<u8>,
    pub no_new_privileges: bool,
    /// Apply our default system call filter.
    pub filter_system_calls: bool,
    /// Who is killed first when memory runs out: 1000 first.
    pub oom_score_adj: i32,
}

/// Who the program runs as. Names are looked up in the container's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `USER` of the image: `name`, `uid`, `name:group`, `uid:gid` or empty.
    pub of_image: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Supplemental groups beside those of the image's user.
    pub groups: Vec<u32>,
    pub must_not_be_root: bool,
}

/// The bytes of one frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the container's description is larger than 4 MiB",
        ));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(
        &u32::try_from(body.len())
            .expect("bounded above")
            .to_le_bytes(),
    );
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Writes one frame, blocking.
pub(crate) fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads one frame, blocking; `None` when the other side is gone.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if let Err(error) = from.read_exact(&mut length) {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            Ok(None)
        } else {
            Err(error)
        };
    }
    let mut body = vec![0; length_of(length)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The checked length of a frame.
pub(crate) fn length_of(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_and_are_bounded() {
        let mut bytes = Vec::new();
        write(&mut bytes, &HelperReply::Parked { pid: 7 }).expect("small");
        write(
            &mut bytes,
            &HelperReply::Failed {
                kind: StartErrorKind::Program,
                message: "x".into(),
            },
        )
        .expect("small");
        let mut from = bytes.as_slice();
        assert_eq!(
            read::<HelperReply>(&mut from).expect("frame"),
            Some(HelperReply::Parked { pid: 7 })
        );
        assert!(matches!(
            read::<HelperReply>(&mut from).expect("frame"),
            Some(HelperReply::Failed { .. })
        ));
        assert_eq!(read::<HelperReply>(&mut from).expect("end"), None);
        assert!(length_of(u32::MAX.to_le_bytes()).is_err());
        assert!(encode(&"x".repeat(FRAME_BYTES_MAX)).is_err());
    }
}
