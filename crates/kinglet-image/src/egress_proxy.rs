//! The way of a pull on a tenant's behalf: a proxy inside this process that refuses addresses of this machine.
//!
//! The registry library makes its connections itself, also for redirects and for the realm of a token, and looks names up
//! itself. So it is given a proxy, and every connection it makes, for whatever reason, comes by here: the name is resolved
//! and the address judged by [`Egress`], then bytes are copied. TLS stays between the library and the registry.
//! Always: hosts that the operator lists in registries.conf pass; nobody but the one client can use the proxy, as every
//! request must carry a secret that only this client knows, or ask for what the client was just redirected to (an HTTP client
//! sends no credentials of a proxy after a redirect to another host); it ends with the client.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kinglet_process::egress::EgressError;
use kinglet_process::{Egress, Tasks};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::builtin::hex;

/// Redirects of plain HTTP that the client has not followed yet; one pull follows a few at a time.
const REDIRECTS_MAX: usize = 16;
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A proxy for one client.
pub(crate) struct EgressProxy {
    url: String,
    state: Arc<State>,
}

struct State {
    egress: Egress,
    /// Connections; they end with the proxy.
    tasks: Tasks,
    /// `host:port` (or a host on its usual port) that the operator listed.
    listed: BTreeSet<String>,
    authorization: HeaderValue,
    /// Where answers have led the client: each may be asked for once without the secret.
    redirects: Mutex<VecDeque<Url>>,
    /// What went wrong last, in words: the client sees no more than a status of the proxy.
    trouble: Mutex<Option<Trouble>>,
}

/// A connection that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Not allowed.
    Refused(String),
    /// The registry cannot be reached, or does not speak HTTP.
    Failed(String),
}

impl EgressProxy {
    pub(crate) async fn start(egress: Egress, listed: BTreeSet<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut secret = [0_u8; 16];
        rustix::rand::getrandom(&mut secret[..], rustix::rand::GetRandomFlags::empty())?;
        let secret = hex(&secret);
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("kinglet:{secret}"));
        let state = Arc::new(State {
            egress,
            tasks: Tasks::new(),
            listed,
            authorization: HeaderValue::try_from(format!("Basic {basic}"))
                .map_err(io::Error::other)?,
            redirects: Mutex::default(),
            trouble: Mutex::default(),
        });
        let (accepting, listener) = (Arc::downgrade(&state), Arc::new(listener));
        state.tasks.restarted("image-proxy", move || {
            accept(Arc::clone(&listener), accepting.clone())
        });
        Ok(Self {
            url: format!("http://kinglet:{secret}@{address}"),
            state,
        })
    }

    /// Where the client finds it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What went wrong last.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.state.trouble.lock().clone()
    }
}

impl Drop for EgressProxy {
    fn drop(&mut self) {
        self.state.tasks.cancel();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = hyper::service::service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, &state).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the image proxy ended");
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}

async fn answer(request: Request<Incoming>, state: &Arc<State>) -> Response<Body> {
    let known = request.headers().get(header::PROXY_AUTHORIZATION) == Some(&state.authorization);
    if !known && !state.take_redirect(&request) {
        return plain(
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "this proxy is Kinglet's own".to_owned(),
        );
    }
    let uri = request.uri();
    let tunnel = request.method() == Method::CONNECT;
    let usual = if tunnel { 443 } else { 80 };
    let Some(host) = uri.host().map(str::to_owned) else {
        return plain(StatusCode::BAD_REQUEST, "a host is missing".to_owned());
    };
    let stream = match connect(state, &host, uri.port_u16().unwrap_or(usual), usual).await {
        Ok(stream) => stream,
        Err((status, message)) => return plain(status, message),
    };
    if tunnel {
        carry(request, stream, &state.tasks)
    } else {
        forward(request, stream, state)
            .await
            .unwrap_or_else(|error| plain(StatusCode::BAD_GATEWAY, failed(state, &host, &error)))
    }
}

/// Connects where that is allowed; says in words where it is not.
async fn connect(
    state: &State,
    host: &str,
    port: u16,
    usual: u16,
) -> Result<TcpStream, (StatusCode, String)> {
    let with_port = format!("{host}:{port}");
    let unreachable = |error: String| (StatusCode::BAD_GATEWAY, error);
    if state.listed.contains(&with_port) || (port == usual && state.listed.contains(host)) {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        return TcpStream::connect((bare, port))
            .await
            .map_err(|error| unreachable(failed(state, &with_port, &error)));
    }
    match state.egress.connect(host, port).await {
        Ok(stream) => Ok(stream),
        Err(EgressError::Refused { address, what }) => {
            let name = if port == usual { host } else { &with_port };
            let message = refusal(name, &address.to_string(), what);
            *state.trouble.lock() = Some(Trouble::Refused(message.clone()));
            Err((StatusCode::FORBIDDEN, message))
        }
        Err(error) => Err(unreachable(failed(state, &with_port, &error))),
    }
}

/// Remembers why a connection failed, unless one was refused.
fn failed(state: &State, host: &str, error: &dyn std::fmt::Display) -> String {
    let message = format!("connecting to {host}: {error}");
    let mut trouble = state.trouble.lock();
    if !matches!(*trouble, Some(Trouble::Refused(_))) {
        *trouble = Some(Trouble::Failed(message.clone()));
    }
    message
}

fn refusal(host: &str, address: &str, what: &str) -> String {
    format!(
        "{host} is {address}, {what}, and images are not fetched from there on behalf of a Pod unless the operator lists the registry in registries.conf: [[registry]] prefix = {host:?} insecure = true"
    )
}

/// Takes connections for as long as the proxy is there.
async fn accept(listener: Arc<TcpListener>, state: Weak<State>) {
    loop {
        let accepted = listener.accept().await;
        let Some(state) = state.upgrade() else {
            return;
        };
        match accepted {
            Ok((stream, _)) => {
                let tasks = state.tasks.clone();
                tasks.spawn_cancellable("image proxy connection", serve(stream, state));
            }
            Err(error) => {
                // Mostly the process is out of file descriptors; other connections free some.
                tracing::warn!(%error, "accepting a connection to the image proxy");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Carries bytes both ways until one side ends.
fn carry(request: Request<Incoming>, mut stream: TcpStream, tasks: &Tasks) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tasks.spawn_cancellable("image proxy tunnel", async move {
        match upgraded.await {
            Ok(client) => {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut stream).await;
            }
            Err(error) => tracing::debug!(%error, "a tunnel of the image proxy was not taken"),
        }
    });
    plain(StatusCode::OK, String::new())
}

impl State {
    /// Remembers where an answer of plain HTTP leads.
    fn note_redirect(&self, asked: Option<&Url>, response: &Response<Incoming>) {
        if !response.status().is_redirection() {
            return;
        }
        let location = response.headers().get(header::LOCATION);
        let target = location
            .and_then(|location| location.to_str().ok())
            .and_then(|location| asked?.join(location).ok());
        if let Some(mut target) = target {
            // Never sent.
            target.set_fragment(None);
            let mut redirects = self.redirects.lock();
            redirects.truncate(REDIRECTS_MAX - 1);
            redirects.push_front(target);
        }
    }

    /// Whether a request follows a redirect, which it uses up.
    fn take_redirect(&self, request: &Request<Incoming>) -> bool {
        let Ok(url) = Url::parse(&request.uri().to_string()) else {
            return false;
        };
        let mut redirects = self.redirects.lock();
        let found = redirects.iter().position(|target| *target == url);
        found.is_some_and(|index| redirects.remove(index).is_some())
    }
}

/// One plain HTTP request.
async fn forward(
    mut request: Request<Incoming>,
    stream: TcpStream,
    state: &State,
) -> Result<Response<Body>, hyper::Error> {
    let asked = Url::parse(&request.uri().to_string()).ok();
    request.headers_mut().remove(header::PROXY_AUTHORIZATION);
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    state
        .tasks
        .spawn_cancellable("image proxy request", async move {
            // Ends with the answer's body.
            let _ = connection.await;
        });
    let response = sender.send_request(request).await?;
    state.note_redirect(asked.as_ref(), &response);
    Ok(response.map(BodyExt::boxed))
}
