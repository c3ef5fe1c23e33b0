//! Binding ports, with one sentence for each way it can fail.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, anyhow, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Duration, Instant};

/// Connections that may wait to be accepted, as tokio's own `TcpListener::bind` has it.
const BACKLOG: u32 = 1024;
/// Until a port whose listener was dropped is free: a fork that holds it execs within milliseconds.
const HOLD_MAX: Duration = Duration::from_secs(5);
const HOLD_PAUSE: Duration = Duration::from_millis(10);

/// Binds a port that a flag names.
pub(crate) async fn bind(
    address: IpAddr,
    port: u16,
    what: &str,
    flag: &str,
) -> anyhow::Result<TcpListener> {
    listen(SocketAddr::new(address, port)).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!("port {port} on {address} is in use by another program; choose another one for the {what} with {flag}"),
        ErrorKind::PermissionDenied => anyhow!("not allowed to listen on port {port}; choose one above 1023 for the {what} with {flag}"),
        ErrorKind::AddrNotAvailable => anyhow!("{address} is not an address of this machine; name one with --listen"),
        _ => anyhow!("listening on {address}:{port} for the {what}: {error}"),
    })
}

/// Binds a port on the bridge, for pods. It may be bound on all addresses (`--listen 0.0.0.0`) as well: the more
/// precise address gets the connections.
pub(crate) fn bind_on_bridge(bridge: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    shared(SocketAddr::new(bridge, port)).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "port {port} is in use on every address by another program, and pods need it on {bridge}; let that program listen on addresses of its own (`ss -ltnp` says who it is)"
        ),
        _ => anyhow!("listening on {bridge}:{port}, which pods use: {error}"),
    })
}

/// A listener on all addresses leaves room for ours on the bridge; but first it must be alone.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let alone = TcpListener::bind(address).await?;
    if !address.ip().is_unspecified() {
        return Ok(alone);
    }
    let address = alone.local_addr()?;
    drop(alone);
    shared(address)
}

/// Binds a port that other processes of ours listen on as well; the kernel spreads connections over them.
pub(crate) fn bind_shared(address: IpAddr, port: u16, what: &str) -> anyhow::Result<TcpListener> {
    shared(SocketAddr::new(address, port))
        .with_context(|| format!("listening on {address}:{port} for the {what}"))
}

/// Keeps a port for processes of ours that share it: nobody else can take it, and nothing is accepted here. A listener that
/// was dropped a moment ago may still be held by a process that is being forked.
pub(crate) async fn hold_shared(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let hold = || -> io::Result<TcpSocket> {
        let socket = shared_socket(address)?;
        socket.bind(address)?;
        Ok(socket)
    };
    let give_up = Instant::now() + HOLD_MAX;
    loop {
        match hold() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < give_up => {
                tokio::time::sleep(HOLD_PAUSE).await;
            }
            held => return held.with_context(|| format!("keeping {address} for the gateways")),
        }
    }
}

fn shared_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    Ok(socket)
}

fn shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = shared_socket(address)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The address to show to people and to write into kubeconfigs: one that can be connected to.
pub(crate) fn shown(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The gateway's port: the one asked for, else 80 when it may, else 8080.
pub(crate) async fn bind_http(address: IpAddr, asked: Option<u16>) -> anyhow::Result<TcpListener> {
    if let Some(port) = asked {
        return bind(address, port, "gateway", "--http-port").await;
    }
    if let Ok(listener) = listen(SocketAddr::new(address, 80)).await {
        return Ok(listener);
    }
    match bind(address, 8080, "gateway", "--http-port").await {
        Ok(listener) => Ok(listener),
        Err(_) => bail!(
            "ports 80 and 8080 on {address} are both in use; choose another one for the gateway with --http-port"
        ),
    }
}

/// The gateway's port for https: the one asked for, else 443 when it may, else 8443. Where both are in use nobody serves
/// https, which is said: who has not asked for it must not fail over it. A gateway for http on any free port
/// (`--http-port 0`, a second Kinglet, a test) takes any free port for https, too.
pub(crate) async fn bind_https(
    address: IpAddr,
    asked: Option<u16>,
    http: Option<u16>,
) -> anyhow::Result<Option<TcpListener>> {
    if let Some(port) = asked.or(http.filter(|port| *port == 0)) {
        let bound = bind(address, port, "https of the gateway", "--https-port").await;
        return bound.map(Some);
    }
    for port in HTTPS_PORTS {
        if let Ok(listener) = listen(SocketAddr::new(address, port)).await {
            return Ok(Some(listener));
        }
    }
    let [first, second] = HTTPS_PORTS;
    tracing::warn!(
        "ports {first} and {second} on {address} are both in use: https is not served; choose another one with --https-port"
    );
    Ok(None)
}

/// Ports for https, the usual one first.
const HTTPS_PORTS: [u16; 2] = [443, 8443];
/// Port of the gateway on the bridge for https.
const GATEWAY_HTTPS_PORT: u16 = 443;

/// Where the gateway listens for https on the bridge, if it does at all: another port where a program of the host has the
/// usual one on every address, whom pods must not reach by it.
pub(crate) fn https_port_inside(own: Option<SocketAddr>) -> anyhow::Result<Option<u16>> {
    own.map(|own| Ok(moved(GATEWAY_HTTPS_PORT, own)?.unwrap_or(GATEWAY_HTTPS_PORT)))
        .transpose()
}

/// Port of the gateway on the bridge for every host name.
const GATEWAY_PORT: u16 = 80;
/// The ports by which Knative's public and private Services of a Revision, and `activator-service`, reach an activator or
/// a queue-proxy: the gateway as well.
const REVISION_PORTS: [u16; 2] = [8012, 8013];
/// An address of this machine that nobody has a listener of his own on: what is in use there is in use on every address.
const NOBODYS: Ipv4Addr = Ipv4Addr::new(127, 80, 80, 80);

/// Another port for the gateway on the bridge, where a program of the host (a web server on every address) has the usual
/// one; pods do not notice, the packet filter leads them there. `own` is the gateway's listener for requests from outside.
pub(crate) fn moved_gateway_port(own: SocketAddr) -> anyhow::Result<Option<u16>> {
    moved(GATEWAY_PORT, own)
}

fn moved(usual: u16, own: SocketAddr) -> anyhow::Result<Option<u16>> {
    // Who has a port on every address leaves room for himself on the bridge, and nobody else has it.
    if own.ip().is_unspecified() && own.port() == usual {
        return Ok(None);
    }
    let tried = std::net::TcpListener::bind((NOBODYS, usual));
    if !tried.is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
        return Ok(None);
    }
    let free = std::net::TcpListener::bind((NOBODYS, 0))
        .and_then(|listener| listener.local_addr())
        .context("looking for a free port for the gateway on the bridge")?;
    Ok(Some(free.port()))
}

/// Binds the gateway's ports for requests between pods.
pub(crate) fn bind_inside(bridge: IpAddr, moved: Option<u16>) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in [moved.unwrap_or(GATEWAY_PORT)]
        .into_iter()
        .chain(REVISION_PORTS)
    {
        listeners.push(bind_on_bridge(bridge, port)?);
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_and_a_precise_one_share_a_port_and_nobody_else_does() {
        let all: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        let outside = bind(all, 0, "gateway", "--http-port").await.expect("all");
        let port = outside.local_addr().expect("bound").port();
        let inside = bind_on_bridge(Ipv4Addr::new(127, 0, 0, 9).into(), port).expect("beside it");
        let (client, accepted) = tokio::join!(
            tokio::net::TcpStream::connect(inside.local_addr().expect("bound")),
            inside.accept()
        );
        client.expect("connected");
        accepted.expect("the precise listener got it");
        let error = bind(all, port, "gateway", "--http-port")
            .await
            .expect_err("a second Kinglet")
            .to_string();
        assert!(
            error.contains("in use") && error.contains("--http-port"),
            "{error}"
        );
        assert_eq!(
            shown(SocketAddr::new(all, port)),
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
        );
    }

    #[tokio::test]
    async fn https_has_the_port_that_was_asked_for_or_any_free_one_beside_such_http() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        let beside = bind_https(loopback, None, Some(0)).await.expect("free");
        let taken = beside.expect("bound");
        let port = taken.local_addr().expect("bound").port();
        assert!(!HTTPS_PORTS.contains(&port));
        let error = bind_https(loopback, Some(port), Some(0))
            .await
            .expect_err("in use")
            .to_string();
        assert!(
            error.contains("--https-port") && error.contains(&port.to_string()),
            "{error}"
        );
        // Who has not asked never fails over it.
        bind_https(loopback, None, None)
            .await
            .expect("perhaps none");
        assert_eq!(https_port_inside(None).expect("looked"), None);
    }

    #[tokio::test]
    async fn only_another_program_moves_the_gateway() {
        let all: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        let listener = bind(all, 0, "gateway", "--http-port").await.expect("all");
        let own = listener.local_addr().expect("bound");
        assert_eq!(moved(own.port(), own).expect("looked"), None);
        let other = TcpListener::bind((all, 0)).await.expect("all");
        let taken = other.local_addr().expect("bound").port();
        for own in [own, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), taken)] {
            let moved = moved(taken, own).expect("looked");
            assert!(moved.is_some_and(|port| port != taken), "{moved:?}");
        }
    }
}
