//! Programs' sockets inside a pod's network, opened by the test: what they send and hear takes the pod's own way.

use std::fs::File;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// An answer comes in milliseconds; this is for a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a server looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Refusal comes at once; this is for a busy machine.
const ANSWER_SECONDS: &str = "10";

/// Does something in the network namespace of a process.
pub(crate) fn inside<T: Send>(
    pid: u32,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> anyhow::Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("the pod's network")?;
    std::thread::scope(|scope| {
        let visit = scope.spawn(|| {
            move_into_thread_name_spaces(namespace.as_fd(), ThreadNameSpaceType::NETWORK)?;
            work()
        });
        Ok(visit.join().expect("no panic")?)
    })
}

/// The process of the container that has this in its environment.
pub(crate) fn process_with(variable: &str) -> Option<u32> {
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let mut all = environment.split(|byte| *byte == 0);
            all.any(|one| one == variable.as_bytes()).then_some(pid)
        })
}

/// Whether a port can be connected to in the network of a process.
pub(crate) fn opens(pid: u32, address: &str, port: u16) -> bool {
    shell(pid, address, port, "true").is_some()
}

/// What a shell gets that has a connection as its third descriptor.
pub(crate) fn shell(pid: u32, address: &str, port: u16, then: &str) -> Option<String> {
    let script = format!("exec 3<>/dev/tcp/{address}/{port} && {then}");
    let output = Command::new("nsenter")
        .args(["--net", "--target", &pid.to_string()])
        .args(["timeout", ANSWER_SECONDS, "bash", "-c", &script])
        .output()
        .expect("nsenter");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A UDP server in a pod that answers everything with its name and the sender's address; ends with its guard.
pub(crate) struct UdpServer(Arc<AtomicBool>);

impl UdpServer {
    pub(crate) fn start(pid: u32, port: u16, name: &str) -> anyhow::Result<Self> {
        let socket = inside(pid, || UdpSocket::bind(("0.0.0.0", port)))?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (server, name) = (Self(Arc::clone(&ended)), name.to_owned());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            }
        });
        Ok(server)
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A UDP client with one port, on the machine or in a pod.
pub(crate) struct UdpClient(UdpSocket);

impl UdpClient {
    pub(crate) fn new(pid: Option<u32>) -> anyhow::Result<Self> {
        let bind = || UdpSocket::bind(("0.0.0.0", 0));
        let socket = match pid {
            Some(pid) => inside(pid, bind)?,
            None => bind()?,
        };
        Ok(Self(socket))
    }

    /// One question, one answer, within `limit`; an error is also what the network answers (a refusal).
    pub(crate) fn ask(&self, to: &str, limit: Duration) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        self.0.set_read_timeout(Some(limit))?;
        // Connected, so that refusals are heard.
        self.0.connect(to)?;
        self.0.send(b"?")?;
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// The same with patience.
    pub(crate) fn answer(&self, to: &str) -> std::io::Result<String> {
        self.ask(to, ANSWER_MAX)
    }
}

/// Connects from inside a pod; how long a refusal may take is the caller's.
pub(crate) fn connect(pid: u32, to: &str, limit: Duration) -> anyhow::Result<()> {
    let to: SocketAddr = to.parse()?;
    inside(pid, || TcpStream::connect_timeout(&to, limit))?;
    Ok(())
}
