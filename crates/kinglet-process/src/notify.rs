//! What systemd wants to hear from a service of `Type=notify` (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;

/// How far the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything serves.
    Ready,
    /// It ends in order.
    Stopping,
}

/// Tells the service manager that listens on `socket` (its `NOTIFY_SOCKET`); nothing happens without one.
pub fn notify(socket: Option<&OsStr>, state: State) {
    let Some(socket) = socket else {
        return;
    };
    if let Err(error) = send(socket.as_encoded_bytes(), state) {
        tracing::warn!(%error, "telling the service manager how far we are");
    }
}

/// The socket is a path, or after `@` a name in the abstract namespace.
fn send(socket: &[u8], state: State) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::SocketAddr;
    let address = match socket.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(OsStr::from_bytes(socket))?,
    };
    let text = match state {
        State::Ready => "READY=1",
        State::Stopping => "STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_hear_it() {
        use std::os::linux::net::SocketAddrExt as _;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let name = format!("kinglet-notify-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let sockets = [
            (
                UnixDatagram::bind(&path).expect("bound"),
                path.display().to_string(),
            ),
            (
                UnixDatagram::bind_addr(&address).expect("bound"),
                format!("@{name}"),
            ),
        ];
        for (socket, name) in sockets {
            for (state, expected) in [(State::Ready, "READY=1"), (State::Stopping, "STOPPING=1")] {
                send(name.as_bytes(), state).expect(&name);
                let mut text = [0; 64];
                let bytes = socket.recv(&mut text).expect("a message");
                assert_eq!(text.get(..bytes), Some(expected.as_bytes()));
            }
        }
        assert!(send(b"/nonexistent/socket", State::Ready).is_err());
    }
}
