//! Reaching a port of a pod, from the host or from inside; or a host that the Pod names, through the egress.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use kinglet_process::Tasks;
use kinglet_process::accept::Acceptor;
use kinglet_process::egress::{EgressError, describe};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::engine::Sandbox;
use crate::probe::prober::ProbeTarget;
use crate::sys::netns;

/// Connections that one bridge to a pod's loopback carries at once.
const BRIDGED_MAX: usize = 1024;
/// Waiting connections at a bridge.
const BACKLOG: u32 = 1024;

/// How a connection came about.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// Only on the pod's loopback: nobody outside of the pod could have got there.
    pub(crate) loopback_only: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("dial tcp {address}: {}", describe(source))]
    Pod {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Egress(#[from] EgressError),
}

impl ConnectError {
    /// Nobody listens there (yet).
    pub(crate) fn is_connection_refused(&self) -> bool {
        match self {
            Self::Pod { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::Egress(error) => error.is_connection_refused(),
        }
    }
}

/// Connects to a port of the pod, or of the `host` that the Pod names. `from_inside` speaks for a process inside the pod:
/// loopback is the pod's own, and is tried as well.
pub(crate) async fn connect(
    target: &ProbeTarget,
    host: Option<&str>,
    port: u16,
    from_inside: bool,
) -> Result<Connected, ConnectError> {
    match host {
        Some(host) if !(from_inside && is_loopback(host)) => {
            let stream = target.egress.connect(host, port).await?;
            Ok(Connected {
                stream,
                loopback_only: false,
            })
        }
        _ => connect_to_pod(&target.sandbox, port, from_inside).await,
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn connect_to_pod(
    sandbox: &Arc<Sandbox>,
    port: u16,
    from_inside: bool,
) -> Result<Connected, ConnectError> {
    let address = SocketAddr::from((sandbox.address(), port));
    let failed = |source| ConnectError::Pod { address, source };
    match TcpStream::connect(address).await {
        Ok(stream) => Ok(Connected {
            stream,
            loopback_only: false,
        }),
        Err(error) if from_inside && error.kind() == io::ErrorKind::ConnectionRefused => {
            let inside = connect_loopback(sandbox, port)
                .await
                .map_err(|_| failed(error))?;
            // It may have begun to listen between the two attempts.
            let outside = TcpStream::connect(address).await;
            let loopback_only = outside.is_err();
            Ok(Connected {
                stream: outside.unwrap_or(inside),
                loopback_only,
            })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Connects to the pod's own loopback.
pub(crate) async fn connect_loopback(sandbox: &Arc<Sandbox>, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket_inside(sandbox, address)
        .await?
        .connect(address)
        .await
}

/// Connects to `localhost` of the pod as `kubectl port-forward` does: IPv4 first, IPv6 where nobody listens on that.
pub(crate) async fn connect_localhost(sandbox: &Arc<Sandbox>, port: u16) -> io::Result<TcpStream> {
    let first = match connect_loopback(sandbox, port).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let said = format!("IPv4: dial tcp4 127.0.0.1:{port}: {}", describe(&first));
    if first.kind() != io::ErrorKind::ConnectionRefused {
        return Err(io::Error::new(first.kind(), said));
    }
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let second = match socket_inside(sandbox, address).await {
        Ok(socket) => socket.connect(address).await,
        // A kernel without IPv6.
        Err(error) => Err(error),
    };
    second.map_err(|second| {
        let said = format!("{said} IPv6: dial tcp6 {address}: {}", describe(&second));
        io::Error::new(first.kind(), said)
    })
}

async fn socket_inside(sandbox: &Arc<Sandbox>, address: SocketAddr) -> io::Result<TcpSocket> {
    let sandbox = Arc::clone(sandbox);
    let fd = tokio::task::spawn_blocking(move || netns::stream_socket(sandbox.network(), address))
        .await
        .map_err(io::Error::other)??;
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
}

/// Carries connections to `port` of the pod's address on to the pod's loopback, for a program that listens only there.
/// The gateway reaches pods by address; upstream's queue-proxy would have been inside.
pub(crate) async fn bridge(sandbox: &Arc<Sandbox>, port: u16, tasks: &Tasks) -> io::Result<()> {
    let address = SocketAddr::from((sandbox.address(), port));
    let socket = socket_inside(sandbox, address).await?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let sandbox = Arc::clone(sandbox);
    let connections = tasks.clone();
    tasks.spawn_cancellable("loopback bridge", async move {
        serve(listener, &sandbox, port, &connections).await
    });
    Ok(())
}

async fn serve(listener: TcpListener, sandbox: &Arc<Sandbox>, port: u16, tasks: &Tasks) {
    let acceptor = Acceptor::new(listener, "loopback of a pod", BRIDGED_MAX);
    loop {
        let ((mut outside, _), place) = acceptor.next().await;
        let sandbox = Arc::clone(sandbox);
        tasks.spawn_cancellable("bridged connection", async move {
            let _place = place;
            if let Ok(mut inside) = connect_loopback(&sandbox, port).await {
                let _ = inside.set_nodelay(true);
                let _ = outside.set_nodelay(true);
                // Either side may go at any time; that is not our concern.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
