//! The sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kinglet_process::{Shares, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::dns::message::{self, Kind, Reply};
use crate::dns::upstream::Upstream;
use crate::dns::zone::{Resolved, Zone};

/// Questions that wait for a resolver at once; more are dropped, and clients ask again.
const QUESTIONS_MAX: usize = 512;
/// Those of one pod: a program that looks up many names at once has a few dozen.
const QUESTIONS_OF_ONE_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 64;
/// Those of one pod: resolver libraries use a connection for one long answer.
const CONNECTIONS_OF_ONE_MAX: usize = 8;
const DATAGRAM_BYTES_MAX: usize = 4096;
const CONNECTION_IDLE: Duration = Duration::from_secs(10);
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Binds both sockets and serves them.
pub(crate) async fn start(
    address: SocketAddr,
    zone: Arc<Zone>,
    upstream: Arc<Upstream>,
    tasks: &Tasks,
) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(address).await?);
    let listener = TcpListener::bind(address).await?;
    let places = Shares::new(QUESTIONS_MAX);
    let (own_zone, own_upstream, own_tasks) =
        (Arc::clone(&zone), Arc::clone(&upstream), tasks.clone());
    tasks.component_cancellable("dns-datagrams", async move {
        datagrams(socket, own_zone, own_upstream, places, own_tasks).await
    });
    let connections = tasks.clone();
    tasks.component_cancellable("dns-connections", async move {
        let places = Shares::new(CONNECTIONS_MAX);
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            };
            let Some(place) = places.take(from.ip(), CONNECTIONS_OF_ONE_MAX) else {
                continue;
            };
            let (zone, upstream) = (Arc::clone(&zone), Arc::clone(&upstream));
            connections.spawn_cancellable("dns connection", async move {
                let _place = place;
                if let Err(error) = connection(stream, &zone, &upstream).await {
                    tracing::trace!(%error, "dns connection");
                }
            });
        }
    });
    Ok(())
}

async fn datagrams(
    socket: Arc<UdpSocket>,
    zone: Arc<Zone>,
    upstream: Arc<Upstream>,
    places: Shares,
    tasks: Tasks,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let query = buffer[..length].to_vec();
        // Our own names are answered here and now.
        if let Some(answer) = own(&zone, &query, false) {
            let _ = socket.send_to(&answer, from).await;
            continue;
        }
        let Some(place) = places.take(from.ip(), QUESTIONS_OF_ONE_MAX) else {
            continue;
        };
        let (socket, zone, upstream) = (
            Arc::clone(&socket),
            Arc::clone(&zone),
            Arc::clone(&upstream),
        );
        tasks.spawn_cancellable("dns question", async move {
            let _place = place;
            if let Some(answer) = foreign(&zone, &upstream, &query, false).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn connection(mut stream: TcpStream, zone: &Zone, upstream: &Upstream) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(CONNECTION_IDLE, stream.read_u16())
            .await
            .map_err(io::Error::other)??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(CONNECTION_IDLE, stream.read_exact(&mut query))
            .await
            .map_err(io::Error::other)??;
        let answer = match own(zone, &query, true) {
            Some(answer) => Some(answer),
            None => foreign(zone, upstream, &query, true).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}

/// The answer, if it is ours to give without asking anybody.
fn own(zone: &Zone, query: &[u8], by_connection: bool) -> Option<Vec<u8>> {
    let question = message::question(query)?;
    let resolved = match question.kind {
        Kind::Srv => zone.resolve_ports(&question.name),
        Kind::Ptr => zone.resolve_reverse(&question.name),
        Kind::V4 | Kind::V6 | Kind::Other => zone.resolve(&question.name),
    };
    let domain = &zone.domain;
    let answer = match &resolved {
        Resolved::Addresses(found) => Reply::Addresses {
            found,
            alias: None,
            zone: domain,
        },
        // Who asks a port's name for addresses learns that the name is there.
        Resolved::Targets(_) if question.kind != Kind::Srv => Reply::Targets {
            found: &[],
            zone: domain,
        },
        Resolved::Targets(found) => Reply::Targets {
            found,
            zone: domain,
        },
        Resolved::Names(found) => Reply::Names(found),
        Resolved::Missing if question.kind == Kind::Ptr => Reply::Missing(message::REVERSE_ZONE),
        Resolved::Missing => Reply::Missing(domain),
        Resolved::Alias(_) | Resolved::Foreign => return None,
    };
    message::reply(query, &answer, by_connection)
}

async fn foreign(
    zone: &Zone,
    upstream: &Upstream,
    query: &[u8],
    by_connection: bool,
) -> Option<Vec<u8>> {
    if let Some(question) = message::question(query)
        && let Resolved::Alias(target) = zone.resolve(&question.name)
    {
        let found = match question.kind {
            Kind::Other | Kind::Srv | Kind::Ptr => Vec::new(),
            kind => {
                let id = u16::from_be_bytes([query[0], query[1]]);
                let answer = upstream
                    .ask(&message::query(id, &target, kind)?, by_connection)
                    .await;
                answer
                    .map(|answer| message::addresses(&answer))
                    .unwrap_or_default()
            }
        };
        let answer = Reply::Addresses {
            found: &found,
            alias: Some(&target),
            zone: &zone.domain,
        };
        return message::reply(query, &answer, by_connection);
    }
    match upstream.ask(query, by_connection).await {
        Some(answer) => Some(answer),
        None => message::reply(query, &Reply::Failed, by_connection),
    }
}
