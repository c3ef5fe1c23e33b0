//! The TLS listener: connections, their users, and their bounds.

mod certificate;
mod impersonation;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use kinglet_process::accept::Acceptor;
use kinglet_process::{Shares, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::auth::tokens;
use crate::body::refusal;
use crate::builtin::retention;
use crate::identity::{Identity, SharedIdentity};
use crate::server::{ApiServer, ApiService};
use crate::state::ServerState;
use crate::status::Status;

/// Connections at once: hundreds of clients with their watches. Fewer where few files may be open.
const CONNECTIONS_MAX: usize = 4096;
/// The part of them that one sender may hold which is not the machine itself: a pod's clients share a handful, and one pod
/// must not keep the others from the API.
const CONNECTIONS_OF_ONE_PART: usize = 16;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to send a request's head, and time to the first request of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between pings of a quiet HTTP/2 connection, and time for the answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before and between probes of an idle connection, and how many may stay unanswered: a minute and a half in all.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;
/// How long bytes may stay unacknowledged before the connection counts as lost; bookmarks make some every minute.
const UNACKNOWLEDGED_MS_MAX: u32 = 90_000;
/// Streams of one HTTP/2 connection: one client's watches and calls.
const STREAMS_MAX: u32 = 250;
/// How long open requests may go on after the order to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves the API on a socket until the tasks are cancelled. Client certificates (if the configuration asks for them) name the user by
/// CN and the groups by O; else a bearer token does.
pub async fn serve(
    server: ApiServer,
    socket: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    tasks: Tasks,
) {
    let tls = TlsAcceptor::from(tls);
    let most = connections_here();
    let acceptor = Acceptor::new(socket, "Kubernetes API", most);
    let shares = Shares::new(most);
    let graceful = GracefulShutdown::new();
    let state = Arc::clone(&server.server);
    let stop = tasks.token();
    tasks.restarted("event-retention", move || {
        let (state, stop) = (Arc::clone(&state), stop.clone());
        async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(retention::SWEEP_EVERY) => retention::expire(&state),
                }
            }
        }
    });
    let (stop, kill) = (tasks.token(), CancellationToken::new());
    loop {
        let ((stream, from), place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = acceptor.next() => accepted,
        };
        let from = from.ip().to_canonical();
        let Some(share) = shares.take(from, part_of(from, most)) else {
            tracing::debug!(%from, "one client has too many connections to the Kubernetes API");
            continue;
        };
        let (tls, server, watcher, kill) = (
            tls.clone(),
            Arc::clone(&server.server),
            graceful.watcher(),
            kill.clone(),
        );
        tasks.spawn("apiserver-connection", async move {
            tokio::select! {
                () = kill.cancelled() => {}
                ended = connection(tls, server, stream, watcher) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
            }
            drop((share, place));
        });
    }
    drop(acceptor);
    drain(&server.server, graceful, &kill).await;
}

/// Gives open requests their time, then closes their connections.
async fn drain(server: &ServerState, graceful: GracefulShutdown, kill: &CancellationToken) {
    // Watches and followed logs never end by themselves.
    server.closing.cancel();
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        kill.cancel();
    }
    if !server.writes.shutdown(DRAIN).await {
        tracing::warn!("writes were still under way when the API server ended");
    }
}

/// Returns how many connections one address may hold. Loopback has no share: it stands for proxies, controllers and tests.
fn part_of(sender: IpAddr, most: usize) -> usize {
    if sender.is_loopback() {
        most
    } else {
        (most / CONNECTIONS_OF_ONE_PART).max(1)
    }
}

/// Returns a quarter of the files that may be open, so that requests to services, containers and the disk have theirs.
fn connections_max(files: Option<u64>) -> usize {
    files.map_or(CONNECTIONS_MAX, |files| {
        usize::try_from(files / 4)
            .unwrap_or(usize::MAX)
            .clamp(1, CONNECTIONS_MAX)
    })
}

/// Returns the number of connections that this process may have open, and warns if the limit of open files lowers it.
fn connections_here() -> usize {
    let most = connections_max(kinglet_process::descriptors::limit());
    if most < CONNECTIONS_MAX {
        tracing::warn!(
            connections = most,
            "the limit of open files is low: the Kubernetes API takes fewer connections (ulimit -n, LimitNOFILE)"
        );
    }
    most
}

async fn connection(
    acceptor: TlsAcceptor,
    server: Arc<ServerState>,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    notice_dead_peers(&stream)?;
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
        })??;
    let from_certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(certificate::identity)
        .map(Arc::new);
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        first.cancel();
        let user = identify(&server, from_certificate.as_ref(), &request)
            .and_then(|user| impersonation::impersonate(&server, user, request.headers()));
        let server = Arc::clone(&server);
        async move {
            match user {
                Ok(user) => ApiService { server, user }.call(request).await,
                Err(status) => Ok(refusal(&status)),
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let served = watcher.watch(served.into_owned());
    tokio::pin!(served);
    // The library's timeouts begin with the first bytes, which say which protocol the client speaks.
    tokio::select! {
        ended = &mut served => return ended,
        () = asked.cancelled() => {}
        () = tokio::time::sleep(HEADER_TIMEOUT) => {
            return Err("no request came".into());
        }
    }
    served.await
}

/// Sets the socket options by which the kernel notices a client whose machine is gone, with and without unsent bytes.
fn notice_dead_peers(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}

/// Returns the user of a request: by its token, by its certificate, or anonymous where that is allowed.
fn identify(
    server: &ServerState,
    certificate: Option<&SharedIdentity>,
    request: &Request<Incoming>,
) -> Result<SharedIdentity, Status> {
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or("");
        let token = text
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        if let Some(token) = token {
            return tokens::authenticate(server, token)
                .or_else(|| certificate.cloned())
                .ok_or_else(Status::unauthorized);
        }
        if certificate.is_none() {
            return Err(Status::unauthorized());
        }
    }
    if let Some(user) = certificate {
        return Ok(Arc::clone(user));
    }
    let first = request
        .uri()
        .path()
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or("");
    if matches!(first, "healthz" | "livez" | "readyz" | "version") {
        return Ok(Arc::new(Identity::anonymous()));
    }
    Err(Status::unauthorized())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pod_leaves_connections_to_the_others() {
        for (sender, most, expected) in [
            ("10.1.0.7", 4096, 256),
            ("10.1.0.7", 3, 1),
            ("127.0.0.1", 4096, 4096),
            ("::1", 4096, 4096),
        ] {
            let sender: IpAddr = sender.parse().expect("an address");
            assert_eq!(part_of(sender, most), expected, "{sender}");
        }
    }

    #[test]
    fn few_files_mean_few_connections() {
        for (files, expected) in [
            (None, CONNECTIONS_MAX),
            (Some(1 << 20), CONNECTIONS_MAX),
            (Some(1024), 256),
            (Some(3), 1),
        ] {
            assert_eq!(connections_max(files), expected, "{files:?}");
        }
    }
}
