//! The TLS listener: connections, who is on the other side, and their bounds.

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
use kinglet_process::{Shares, Tasks};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::auth::{rights, tokens};
use crate::body::refusal;
use crate::builtin::retention;
use crate::identity::{ANONYMOUS, Identity, SharedIdentity};
use crate::path::RequestInfo;
use crate::server::{ApiServer, ApiService};
use crate::state::ServerState;
use crate::status::Status;

/// Connections at once: hundreds of clients with their watches. Fewer where few files may be open.
const CONNECTIONS_MAX: usize = 4096;
/// The part of them that one sender may hold which is not the machine itself: a pod's clients share a handful, and one pod
/// must not keep the others from the API.
const CONNECTIONS_OF_ONE_PART: usize = 16;
/// A handshake that takes longer is not a client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to send a request's head, and time to the first request of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may think.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before and between probes of an idle connection, and how many may stay unanswered: a minute and a half in all.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;
/// How long bytes may stay unacknowledged before the connection counts as lost; bookmarks make some every minute.
const UNACKNOWLEDGED_MS_MAX: u32 = 90_000;
/// Streams of one HTTP/2 connection: one client's watches and calls.
const STREAMS_MAX: u32 = 250;
/// Group of the attributes of users.
const AUTHENTICATION: &str = "authentication.k8s.io";
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
    let acceptor = TlsAcceptor::from(tls);
    let most = connections_max(kinglet_process::descriptors::limit());
    if most < CONNECTIONS_MAX {
        tracing::warn!(
            connections = most,
            "the limit of open files is low: the Kubernetes API takes fewer connections (ulimit -n, LimitNOFILE)"
        );
    }
    let places = Arc::new(Semaphore::new(most));
    let shares = Shares::new(most);
    let graceful = GracefulShutdown::new();
    let state = Arc::clone(&server.server);
    tasks.spawn_cancellable("apiserver-events", async move {
        loop {
            tokio::time::sleep(retention::SWEEP_EVERY).await;
            retention::expire(&state);
        }
    });
    let (stop, kill) = (tasks.token(), CancellationToken::new());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, mostly; others may free some.
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let from = from.ip().to_canonical();
        let Some(share) = shares.take(from, part_of(from, most)) else {
            tracing::debug!(%from, "one client has too many connections to the Kubernetes API");
            continue;
        };
        let (acceptor, server, watcher, kill) = (
            acceptor.clone(),
            Arc::clone(&server.server),
            graceful.watcher(),
            kill.clone(),
        );
        tasks.spawn("apiserver-connection", async move {
            tokio::select! {
                () = kill.cancelled() => {}
                ended = connection(acceptor, server, stream, watcher) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
            }
            drop((share, place));
        });
    }
    drop(socket);
    // Watches and followed logs never end by themselves.
    server.server.closing.cancel();
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        kill.cancel();
    }
    if !server.server.writes.shutdown(DRAIN).await {
        tracing::warn!("writes were still under way when the API server ended");
    }
}

/// How many of the connections one sender may hold. Who is on this machine speaks for many: proxies, controllers, tests.
fn part_of(sender: IpAddr, most: usize) -> usize {
    if sender.is_loopback() {
        most
    } else {
        (most / CONNECTIONS_OF_ONE_PART).max(1)
    }
}

/// A quarter of the files that may be open, so that requests to services, containers and the disk have theirs.
fn connections_max(files: Option<u64>) -> usize {
    files.map_or(CONNECTIONS_MAX, |files| {
        usize::try_from(files / 4)
            .unwrap_or(usize::MAX)
            .clamp(1, CONNECTIONS_MAX)
    })
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
        .and_then(certificate_identity)
        .map(Arc::new);
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        first.cancel();
        let user = identify(&server, from_certificate.as_ref(), &request)
            .and_then(|user| impersonate(&server, user, &request));
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
    // Before the first bytes say which protocol it is, no bound of the library applies.
    tokio::select! {
        ended = &mut served => return ended,
        () = asked.cancelled() => {}
        () = tokio::time::sleep(HEADER_TIMEOUT) => {
            return Err("no request came".into());
        }
    }
    served.await
}

/// A client whose machine is gone answers nothing: idle watches are found by keepalive, those with unsent bytes by the time these wait.
fn notice_dead_peers(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}

/// Who asks: the certificate's owner, the token's bearer, or nobody.
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

/// `kubectl --as`: somebody who may, acts as somebody else.
fn impersonate(
    server: &ServerState,
    user: SharedIdentity,
    request: &Request<Incoming>,
) -> Result<SharedIdentity, Status> {
    let headers = request.headers();
    // A name that cannot be read must not be taken for none: the request would be made with the caller's own rights.
    let unreadable = headers.iter().any(|(name, value)| {
        name.as_str().starts_with("impersonate-") && std::str::from_utf8(value.as_bytes()).is_err()
    });
    if unreadable {
        return Err(Status::bad_request(
            "a header of impersonation is not UTF-8",
        ));
    }
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .map(str::to_owned)
            .collect()
    };
    let (users, groups) = (all("impersonate-user"), all("impersonate-group"));
    let others = headers
        .keys()
        .any(|name| name == "impersonate-uid" || name.as_str().starts_with("impersonate-extra-"));
    if users.is_empty() && groups.is_empty() && !others {
        return Ok(user);
    }
    let Some(name) = users.into_iter().next() else {
        return Err(Status::bad_request(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    };
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let target = |resource: &str, namespace: &str, name: &str| RequestInfo {
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    match account {
        Some((namespace, account)) => rights::check(
            server,
            &user,
            "impersonate",
            &target("serviceaccounts", namespace, account),
        )?,
        None => rights::check(server, &user, "impersonate", &target("users", "", &name))?,
    }
    for uid in all("impersonate-uid") {
        let mut info = target("uids", "", &uid);
        info.group = AUTHENTICATION.to_owned();
        rights::check(server, &user, "impersonate", &info)?;
    }
    // Further attributes say nothing to RBAC; who may not set them is refused nevertheless.
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            for value in all(name.as_str()) {
                let mut info = target("userextras", "", &value);
                info.group = AUTHENTICATION.to_owned();
                info.subresource = crate::path::decode(key).into_owned();
                rights::check(server, &user, "impersonate", &info)?;
            }
        }
    }
    for group in &groups {
        rights::check(server, &user, "impersonate", &target("groups", "", group))?;
    }
    let mut groups = groups;
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    if name == ANONYMOUS && groups.is_empty() {
        return Ok(Arc::new(Identity::anonymous()));
    }
    let mut identity = Identity::remote(&name, groups);
    identity.uid = all("impersonate-uid")
        .into_iter()
        .next()
        .unwrap_or_default();
    Ok(Arc::new(identity))
}

/// CN and O of a certificate that rustls has verified.
fn certificate_identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (mut name, mut groups) = (String::new(), Vec::new());
    for (kind, value) in subject::attributes(certificate)? {
        match kind {
            subject::Attribute::CommonName => name = value,
            subject::Attribute::Organization => groups.push(value),
        }
    }
    (!name.is_empty()).then(|| Identity::remote(&name, groups))
}

/// Just enough DER to read the subject of a certificate.
mod subject {
    /// The attributes that say who somebody is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Attribute {
        CommonName,
        Organization,
    }

    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

    /// One element: tag, content, rest.
    fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (&tag, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 || rest.len() < count {
                return None;
            }
            let (digits, rest) = rest.split_at(count);
            (
                digits
                    .iter()
                    .fold(0usize, |sum, digit| (sum << 8) | usize::from(*digit)),
                rest,
            )
        };
        if rest.len() < length {
            return None;
        }
        let (content, rest) = rest.split_at(length);
        Some((tag, content, rest))
    }

    /// Common name and organisations of the subject, in order.
    pub(super) fn attributes(certificate: &[u8]) -> Option<Vec<(Attribute, String)>> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        // version (optional), serial, algorithm, issuer, validity, then the subject.
        if element(fields)?.0 == 0xa0 {
            fields = element(fields)?.2;
        }
        for _ in 0..4 {
            fields = element(fields)?.2;
        }
        let (_, mut names, _) = element(fields)?;
        let mut found = Vec::new();
        while let Some((_, mut set, rest)) = element(names) {
            while let Some((_, pair, more)) = element(set) {
                let (_, kind, value) = element(pair)?;
                let text = || {
                    element(value).map(|(_, text, _)| String::from_utf8_lossy(text).into_owned())
                };
                match kind {
                    COMMON_NAME => found.push((Attribute::CommonName, text()?)),
                    ORGANIZATION => found.push((Attribute::Organization, text()?)),
                    _ => {}
                }
                set = more;
            }
            names = rest;
        }
        Some(found)
    }
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
