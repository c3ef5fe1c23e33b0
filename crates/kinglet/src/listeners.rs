//! Binding ports, with one sentence for each way it can fail.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, anyhow, bail};
use tokio::net::TcpListener;

/// Binds a port that a flag names.
pub(crate) async fn bind(
    address: IpAddr,
    port: u16,
    what: &str,
    flag: &str,
) -> anyhow::Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(address, port)).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!("port {port} on {address} is in use by another program; choose another one for the {what} with {flag}"),
        ErrorKind::PermissionDenied => anyhow!("not allowed to listen on port {port}; choose one above 1023 for the {what} with {flag}"),
        ErrorKind::AddrNotAvailable => anyhow!("{address} is not an address of this machine; name one with --listen"),
        _ => anyhow!("listening on {address}:{port} for the {what}: {error}"),
    })
}

/// The gateway's port: the one asked for, else 80 when it may, else 8080.
pub(crate) async fn bind_http(address: IpAddr, asked: Option<u16>) -> anyhow::Result<TcpListener> {
    if let Some(port) = asked {
        return bind(address, port, "gateway", "--http-port").await;
    }
    if let Ok(listener) = TcpListener::bind(SocketAddr::new(address, 80)).await {
        return Ok(listener);
    }
    match bind(address, 8080, "gateway", "--http-port").await {
        Ok(listener) => Ok(listener),
        Err(_) => bail!(
            "ports 80 and 8080 on {address} are both in use; choose another one for the gateway with --http-port"
        ),
    }
}

/// Where the gateway listens on the bridge: the port of every host name, and the ones by which Knative's public and
/// private Services of a Revision, and `activator-service`, reach an activator or a queue-proxy.
const INSIDE_PORTS: [u16; 3] = [80, 8012, 8013];

/// Binds the gateway's ports for requests between pods.
pub(crate) async fn bind_inside(bridge: IpAddr) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in INSIDE_PORTS {
        let listener = TcpListener::bind(SocketAddr::new(bridge, port))
            .await
            .with_context(|| format!("listening on {bridge}:{port} for requests between pods"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}
