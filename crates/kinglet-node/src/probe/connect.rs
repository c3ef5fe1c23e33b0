//! Reaching a port of a pod, from the host or from inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kinglet_process::Tasks;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::engine::Sandbox;
use crate::sys::netns;

/// Connections that one bridge to a pod's loopback carries at once.
const BRIDGED_MAX: usize = 1024;
/// Waiting connections at a bridge.
const BACKLOG: u32 = 1024;
/// After an accept that failed (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a connection came about.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    /// Only on the pod's loopback: nobody outside of the pod could have got there.
    pub(crate) only_inside: bool,
}

/// Connects to a port of the pod. `from_inside` also tries the pod's loopback, as a process inside the pod would.
pub(crate) async fn connect(
    sandbox: &Arc<Sandbox>,
    host: Option<&str>,
    port: u16,
    from_inside: bool,
) -> io::Result<Reached> {
    let own = IpAddr::V4(sandbox.address());
    let address = match host {
        None | Some("localhost") => own,
        Some(host) => match host.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() && from_inside => own,
            Ok(address) => address,
            Err(_) => {
                let found = tokio::net::lookup_host((host, port)).await?.next();
                found
                    .ok_or_else(|| {
                        io::Error::new(io::ErrorKind::NotFound, format!("no address for {host}"))
                    })?
                    .ip()
            }
        },
    };
    let outside = TcpStream::connect((address, port)).await;
    match outside {
        Err(error)
            if error.kind() == io::ErrorKind::ConnectionRefused
                && from_inside
                && address == own =>
        {
            let stream = connect_loopback(sandbox, port).await.map_err(|_| error)?;
            // It may have begun to listen between the two attempts.
            match TcpStream::connect((address, port)).await {
                Ok(stream) => Ok(Reached {
                    stream,
                    only_inside: false,
                }),
                Err(_) => Ok(Reached {
                    stream,
                    only_inside: true,
                }),
            }
        }
        other => Ok(Reached {
            stream: other?,
            only_inside: false,
        }),
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
        serve(&listener, &sandbox, port, &connections).await
    });
    Ok(())
}

async fn serve(listener: &TcpListener, sandbox: &Arc<Sandbox>, port: u16, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(BRIDGED_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((mut outside, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
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
