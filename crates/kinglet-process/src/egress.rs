//! Connections on a tenant's behalf: whatever address an object names, they never reach this machine itself.
//!
//! Flow: probe, hook, webhook or sink with a URL somebody else wrote -> [`Egress::connect`] -> a socket of a network namespace
//! of its own (the node makes it; it looks like one more pod) -> the destination.
//! Always: two independent reasons keep such a connection away from the host: sockets belong to a namespace whose loopback is
//! empty, and an address that is loopback, link-local or this machine's own is refused in words before a socket is
//! asked for. Names are resolved first and each of their addresses is judged, so a DNS answer opens no way round.
//! Redirects are the caller's: each hop is another `connect`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};

/// Addresses of one name that are tried, so that a name with thousands of them keeps nobody busy.
const ADDRESSES_MAX: usize = 8;

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The address is this machine's, or one that only it can reach.
    #[error(
        "{address} is {what}, which is not reached on behalf of a Pod or a webhook: name an address of the pod network or of another machine"
    )]
    Refused {
        /// The address after resolution.
        address: IpAddr,
        /// Why, as "this machine's loopback".
        what: &'static str,
    },
    /// The name has no address.
    #[error("lookup {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// The destination did not answer, or refused.
    #[error("dial tcp {address}: {}", describe(source))]
    Connect {
        /// The destination.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

impl EgressError {
    /// Nobody listens there (yet).
    pub fn is_connection_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// The words of Go's dialer, which people know from kubelets.
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// A fresh TCP socket (IPv6 when asked), non-blocking and close-on-exec, of the namespace that connections leave from.
pub type MakeSocket =
    dyn Fn(bool) -> Pin<Box<dyn Future<Output = io::Result<OwnedFd>> + Send>> + Send + Sync;

/// Connects on a tenant's behalf. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    make_socket: Arc<MakeSocket>,
    is_own: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Egress {
    /// Connections from the sockets of `make_socket`; `is_own` knows this machine's addresses ([`is_own_address`] does).
    pub fn new(
        make_socket: impl Fn(bool) -> Pin<Box<dyn Future<Output = io::Result<OwnedFd>> + Send>>
        + Send
        + Sync
        + 'static,
        is_own: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            make_socket: Arc::new(make_socket),
            is_own: Arc::new(is_own),
        }
    }

    /// Connects to a name or address in any spelling that a resolver takes. The caller bounds the time.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, EgressError> {
        let lookup_failed = |source| EgressError::Lookup {
            host: host.to_owned(),
            source,
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let found = tokio::net::lookup_host((bare, port))
            .await
            .map_err(lookup_failed)?;
        self.connect_any(found)
            .await?
            .ok_or_else(|| lookup_failed(io::Error::new(io::ErrorKind::NotFound, "no such host")))
    }

    /// Connects to the first of a resolver's answers that takes it. Each is judged by itself, whatever the name was; the
    /// address that was judged is the one that is dialled.
    async fn connect_any(
        &self,
        found: impl Iterator<Item = SocketAddr>,
    ) -> Result<Option<TcpStream>, EgressError> {
        let mut failure = None;
        for address in found.take(ADDRESSES_MAX) {
            match self.connect_address(address).await {
                Ok(stream) => return Ok(Some(stream)),
                // A refusal is the more telling answer of several.
                Err(refused @ EgressError::Refused { .. }) => failure = Some(refused),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Connects to one address.
    pub async fn connect_address(&self, address: SocketAddr) -> Result<TcpStream, EgressError> {
        // An IPv4 address written as an IPv6 one is judged, and reached, as what it is.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let Some(what) = refusal(address.ip(), &*self.is_own) {
            return Err(EgressError::Refused {
                address: address.ip(),
                what,
            });
        }
        let failed = |source| EgressError::Connect { address, source };
        let socket = (self.make_socket)(address.is_ipv6())
            .await
            .map_err(failed)?;
        TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await
            .map_err(failed)
    }
}

/// What is wrong with an address, if anything: pure but for `is_own`.
fn refusal(address: IpAddr, is_own: &dyn Fn(IpAddr) -> bool) -> Option<&'static str> {
    let (link_local, group) = match address {
        IpAddr::V4(v4) => (
            v4.is_link_local(),
            v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0,
        ),
        // Addresses that carry an IPv4 one inside (6to4, NAT64, "compatible") may lead back to it.
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.is_multicast() || carries_v4(v6),
        ),
    };
    if address.is_loopback() {
        Some("this machine's loopback")
    } else if address.is_unspecified() {
        Some("this machine itself")
    } else if link_local {
        Some("a link-local address")
    } else if group {
        Some("no address of one machine")
    } else if is_own(address) {
        Some("this machine's own address")
    } else {
        None
    }
}

fn carries_v4(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    parts[0] == 0x2002 || (parts[0] == 0x64 && parts[1] == 0xff9b) || parts[..6] == [0; 6]
}

/// Whether an address belongs to this machine at this moment: only then may a socket be bound to it.
pub fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

/// An [`Egress`] that has no way out at all: for programs without a node.
pub fn closed() -> Egress {
    Egress::new(
        |_| {
            Box::pin(async {
                Err(io::Error::other(
                    "there is no node whose network could be used",
                ))
            })
        },
        |_| false,
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn the_host_is_refused_in_every_spelling() {
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let egress = Egress::new(
            move |_| {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Box::pin(async { Err(io::Error::other("a socket was asked for")) })
            },
            |address| address == IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        );
        for host in [
            "127.0.0.1",
            "127.1",
            "127.255.255.254",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0.0.0.0",
            "0",
            "localhost",
            "::1",
            "[::1]",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.7",
            "::ffff:192.0.2.7",
        ] {
            let refused = egress.connect(host, 80).await.expect_err(host);
            assert!(
                matches!(
                    refused,
                    EgressError::Refused { .. } | EgressError::Lookup { .. }
                ),
                "{host}: {refused}"
            );
        }
        assert_eq!(made.load(std::sync::atomic::Ordering::SeqCst), 0);
        let passed = egress
            .connect("192.0.2.8", 80)
            .await
            .expect_err("no socket");
        assert!(matches!(passed, EgressError::Connect { .. }), "{passed}");
    }

    #[test]
    fn own_addresses_are_known() {
        assert!(is_own_address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_own_address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
    }

    #[tokio::test]
    async fn a_dns_answer_of_this_machine_gets_nowhere() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("bound").port();
        let sockets = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let made = sockets.clone();
        let egress = Egress::new(
            move |_| {
                made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Box::pin(async { Err(io::Error::from(io::ErrorKind::NetworkUnreachable)) })
            },
            |address| address == IpAddr::from([192, 0, 2, 9]),
        );
        for (answers, sockets_made) in [
            (&["127.0.0.1"][..], 0),
            (&["127.8.8.8", "::1"], 0),
            (&["::ffff:127.0.0.1", "0.0.0.0", "::"], 0),
            (&["169.254.169.254"], 0),
            (&["192.0.2.9"], 0),
            // One good address among them opens no way to the others.
            (&["198.51.100.1", "127.0.0.1"], 1),
        ] {
            sockets.store(0, std::sync::atomic::Ordering::SeqCst);
            let found: Vec<SocketAddr> = answers
                .iter()
                .map(|answer| SocketAddr::new(answer.parse().expect("an address"), port))
                .collect();
            let error = egress
                .connect_any(found.into_iter())
                .await
                .expect_err("nowhere");
            assert!(
                matches!(error, EgressError::Refused { .. }),
                "{answers:?}: {error}"
            );
            assert_eq!(
                sockets.load(std::sync::atomic::Ordering::SeqCst),
                sockets_made,
                "{answers:?}"
            );
        }
        assert!(listener.accept().is_err(), "nobody has come");
    }
}
