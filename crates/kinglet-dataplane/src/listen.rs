//! Client connections: accepted up to a bound, told apart by their first bytes, closed when idle or draining.
//!
//! HTTP/1.1 and HTTP/2 share each port (the HTTP/2 preface, or ALPN with TLS, decides). A connection is one task; it
//! ends with its last answer once the data plane stops: HTTP/1 by `connection: close`, HTTP/2 by GOAWAY.

mod client_io;
mod connection;
mod handshake;
mod registry;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kinglet_decide::route::Visibility;
use kinglet_process::accept;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

pub(crate) use registry::{ActiveRequest, ConnectionRegistry, watch};

use crate::headers::Origin;
use crate::plane::Plane;

/// At the bound on connections, one is asked to make room this often.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Who is on the other side of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Anybody: only public hosts are served.
    External,
    /// Pods of this installation: private hosts too.
    ClusterLocal,
}

impl Listener {
    pub(crate) fn visibility(self) -> Visibility {
        match self {
            Self::External => Visibility::External,
            Self::ClusterLocal => Visibility::ClusterLocal,
        }
    }
}

/// A client's connection, as its requests see it.
pub(crate) struct Peer {
    pub(crate) origin: Origin,
    pub(crate) address: SocketAddr,
    pub(crate) visibility: Visibility,
    pub(crate) tls: bool,
    /// The host that the TLS handshake was for.
    server_name: OnceLock<Box<str>>,
    activity: Arc<registry::ConnectionActivity>,
    /// Counts the connection, also when it has become a tunnel; a caller in this process has none.
    _counted: Option<(OwnedSemaphorePermit, registry::Registration)>,
}

impl Peer {
    /// A caller in this process, as it were a client on this machine.
    pub(crate) fn caller(kind: Listener) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            origin: Origin::new(address.ip(), false),
            address,
            visibility: kind.visibility(),
            tls: false,
            server_name: OnceLock::new(),
            activity: Arc::default(),
            _counted: None,
        }
    }

    /// The host that the TLS handshake was for.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.get().map(|name| &**name)
    }

    pub(crate) fn active_request(&self) -> ActiveRequest {
        ActiveRequest::new(&self.activity)
    }
}

/// Accepts until the data plane stops.
pub(crate) async fn accept(
    plane: Arc<Plane>,
    listener: TcpListener,
    kind: Listener,
    tls: Option<TlsAcceptor>,
) {
    let stop = plane.connections.token();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = permit(&plane) => permit,
        };
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept::next(&listener, "data plane") => accepted,
        };
        let activity = Arc::<registry::ConnectionActivity>::default();
        let options = plane.options();
        let entered = plane
            .registry
            .enter(address.ip(), &activity, options, &stop);
        let Some(registration) = entered else {
            tracing::debug!(client = %address, "too many connections of this source");
            continue;
        };
        let peer = Arc::new(Peer {
            origin: Origin::new(address.ip(), tls.is_some()),
            address,
            visibility: kind.visibility(),
            tls: tls.is_some(),
            server_name: OnceLock::new(),
            activity,
            _counted: Some((permit, registration)),
        });
        let serving = connection::serve(plane.clone(), stream, peer, tls.clone());
        plane.connections.spawn("client connection", serving);
    }
}

/// The right to one more connection. At the bound, clients wait in the kernel's backlog instead of in our memory, and
/// idle connections make room for them.
async fn permit(plane: &Plane) -> OwnedSemaphorePermit {
    loop {
        let permit = plane.permits.clone().acquire_owned();
        match tokio::time::timeout(ROOM_PAUSE, permit).await {
            Ok(permit) => return permit.expect("the semaphore is never closed"),
            Err(_elapsed) => plane.registry.make_room(),
        }
    }
}
