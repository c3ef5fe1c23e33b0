//! `kubectl exec`, `attach` and `port-forward`: requests that become streams between a client and a pod.
//!
//! Flow: the request is checked and the session opened, so that whatever is wrong is an ordinary answer -> 101 -> the client's
//! protocol ([`websocket`], or [`spdy`] for older clients and for ports) is spoken by one task until either side ends.
//! Always: when the client is gone, what was opened for it is dropped; a session in which nothing is said ends.

mod channels;
mod forward;
mod idle;
mod places;
mod pump;
mod spdy;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::rights;
use crate::body::{ApiResponse, Body};
use crate::context::RequestContext;
use crate::logs::chosen_container;
use crate::present;
use crate::status::Status;

pub(crate) use places::Places;

use places::Place;

/// How often a client is asked whether it is still there (as often as clients ask): one that is gone while its program does
/// not read what it sent, or writes nothing, would not be noticed otherwise.
const PING_EVERY: Duration = Duration::from_secs(5);

/// What a program reads from.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// What a program writes to.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;
/// Both ways to a port.
pub type Connection = Box<dyn Duplex>;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a client wants to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The container; always named.
    pub container: String,
    /// The program to start; the container's own without one.
    pub command: Option<Vec<String>>,
    /// The client will send input.
    pub stdin: bool,
    /// The program gets a terminal.
    pub tty: bool,
}

/// Streams to a program.
pub struct Session {
    /// Its input, if it takes any.
    pub stdin: Option<Input>,
    /// Its output.
    pub stdout: Option<Source>,
    /// Its errors, unless they are in its output.
    pub stderr: Option<Source>,
    /// Tells it the size of its terminal: columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// Its exit code, or why it did not run. Polled all the time.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Session")
    }
}

/// Opens sessions with containers. Injected by the root, since this crate knows no node.
pub trait PodSessions: Send + Sync + 'static {
    /// Starts a program in a container, or attaches to the container's own.
    fn open(
        &self,
        namespace: &str,
        pod: &str,
        options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>>;

    /// Connects to a port on the pod's loopback; says why not.
    fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, String>>;
}

/// A request that asks for another protocol.
pub(crate) struct Upgrade {
    pub(crate) headers: HeaderMap,
    pub(crate) connection: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for, if it does.
    pub(crate) fn of(parts: &mut http::request::Parts) -> Option<Self> {
        parts.headers.get(header::UPGRADE)?;
        Some(Self {
            headers: parts.headers.clone(),
            connection: parts.extensions.remove::<OnUpgrade>()?,
        })
    }

    /// The words of a header that may be given several times, as a list each.
    fn list(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect()
    }

    fn wants(&self, protocol: &str) -> bool {
        self.list("upgrade")
            .iter()
            .any(|word| word.eq_ignore_ascii_case(protocol))
    }
}

/// What the client of a session has asked for, besides what the session is.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Answers `exec` and `attach`.
pub(crate) async fn session(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    check_create(context)?;
    let pod = running_pod(context)?;
    let (upgrade, sessions) = prerequisites(context)?;
    let query = &context.query;
    let tty = query.flag("tty");
    let wanted = Wanted {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Status::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let command = (context.info.subresource == "exec")
        .then(|| query.all("command").map(str::to_owned).collect::<Vec<_>>());
    if command.as_ref().is_some_and(Vec::is_empty) {
        return Err(Status::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let options = SessionOptions {
        container: chosen_container(&pod, query)?,
        command,
        stdin: wanted.stdin,
        tty,
    };
    let protocol = channels::negotiate(&upgrade)?;
    // The program runs once it is open: everything that can be refused is refused before.
    let answer = switching(protocol.headers(&upgrade)?);
    let permit = permit(context)?;
    let session = sessions
        .open(&context.info.namespace, &context.info.name, options)
        .await?;
    let connection = upgrade.connection;
    spawn(context, permit, async move {
        if let Ok(connection) = connection.await {
            protocol.speak(connection, session, wanted).await;
        }
    });
    Ok(answer)
}

/// Answers `portforward`.
pub(crate) async fn port_forward(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    check_create(context)?;
    running_pod(context)?;
    let (upgrade, sessions) = prerequisites(context)?;
    let protocol = forward::negotiate(&upgrade)?;
    let permit = permit(context)?;
    let answer = switching(protocol.headers(&upgrade)?);
    let (namespace, pod) = (context.info.namespace.clone(), context.info.name.clone());
    let connection = upgrade.connection;
    spawn(context, permit, async move {
        if let Ok(connection) = connection.await {
            let dial = |port| sessions.connect(&namespace, &pod, port);
            protocol.speak(connection, &pod, dial).await;
        }
    });
    Ok(answer)
}

/// A WebSocket begins with a GET. To run a program or to talk to one needs the right to create all the same, as in
/// Kubernetes since 1.35: `get` on everything is given to those who only look.
fn check_create(context: &RequestContext<'_>) -> Result<(), Status> {
    rights::check(context.server, context.user, "create", &context.info)
}

fn running_pod(context: &RequestContext<'_>) -> Result<serde_json::Value, Status> {
    let name = &context.info.name;
    let key = context.kind.key(&context.info.namespace, name);
    let entry = context.server.store.get(&key);
    let entry = entry.ok_or_else(|| context.not_found(name))?;
    let pod = present::object(&context.kind, &entry.value);
    if crate::object::text(&pod, &["spec", "nodeName"]).is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    Ok(pod)
}

fn prerequisites(
    context: &mut RequestContext<'_>,
) -> Result<(Upgrade, Arc<dyn PodSessions>), Status> {
    let sessions = context.server.options.sessions.clone().ok_or_else(|| {
        Status::not_implemented("there is no node here that could open a session with a container")
    })?;
    let upgrade = context
        .upgrade
        .take()
        .ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    Ok((upgrade, sessions))
}

fn permit(context: &RequestContext<'_>) -> Result<Place, Status> {
    context
        .server
        .sessions
        .take(&context.info.namespace)
        .map_err(|why| Status::too_many(why, 1))
}

/// Runs a session until it ends or the server does.
fn spawn(
    context: &RequestContext<'_>,
    permit: Place,
    session: impl Future<Output = ()> + Send + 'static,
) {
    let closing = context.server.closing.clone();
    context.server.writes.spawn("pod session", async move {
        let _permit = permit;
        tokio::select! {
            () = session => {}
            () = closing.cancelled() => {}
        }
    });
}

fn switching(headers: Vec<(header::HeaderName, HeaderValue)>) -> ApiResponse {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response
}
