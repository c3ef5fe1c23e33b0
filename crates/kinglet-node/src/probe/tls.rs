//! TLS to pods: a probe asks whether a server answers, not who it is.

use kinglet_process::unverified;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A TLS session over `stream`; a host that is a name is told to the server (SNI).
pub(crate) async fn wrap(
    stream: TcpStream,
    host: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = unverified::server_name(host, stream.peer_addr()?.ip());
    let config = unverified::client_config().map_err(std::io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}
