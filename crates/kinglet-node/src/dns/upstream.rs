//! The host's own resolvers, for everything that is not ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// One resolver has this long; resolver libraries give up after five seconds and ask again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Asked one after the other.
const SERVERS_MAX: usize = 3;
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Where questions go on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    servers: Vec<SocketAddr>,
}

impl Upstream {
    /// The resolvers in the text of a `resolv.conf`; never ourselves.
    pub(crate) fn new(resolv_conf: &str, own: IpAddr) -> Self {
        let servers = resolv_conf
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"));
        let servers = servers
            .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
            .filter(|address| *address != own);
        Self {
            servers: servers
                .take(SERVERS_MAX)
                .map(|address| SocketAddr::new(address, 53))
                .collect(),
        }
    }

    /// Asks; the answer is handed on as it came.
    pub(crate) async fn ask(&self, query: &[u8], by_connection: bool) -> Option<Vec<u8>> {
        for server in &self.servers {
            let attempt = async {
                if by_connection {
                    ask_by_connection(*server, query).await
                } else {
                    ask_by_datagram(*server, query).await
                }
            };
            match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver"),
                Err(_) => tracing::debug!(%server, "resolver did not answer"),
            }
        }
        None
    }
}

async fn ask_by_datagram(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A socket, and so a port, per question: nobody can guess where the answer must go.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 2 && answer[..2] == query[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_by_connection(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_all(
            &u16::try_from(query.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        )
        .await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_from_a_file() {
        let own = IpAddr::from([10, 0, 0, 1]);
        let upstream = Upstream::new(
            "# x\nnameserver 1.1.1.1\n nameserver 10.0.0.1\nsearch lan\nnameserver fe80::1%eth0\nnameserver ::1\n",
            own,
        );
        assert_eq!(
            upstream.servers,
            vec![
                SocketAddr::from(([1, 1, 1, 1], 53)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, 53))
            ]
        );
    }
}
