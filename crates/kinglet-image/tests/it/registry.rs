//! A registry in this process: what it holds, whom it lets in, how it misbehaves, what it was asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use kinglet_process::pki::Pki;
use kinglet_process::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::content::Built;

/// How the registry behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// Accepts and says nothing.
    Hangs,
    /// Sends half of every layer and then nothing.
    StopsHalfway,
    /// Answers everything with this status.
    Answers(u16),
    /// Serves other bytes than the digest says.
    Lies,
    /// Says that layers and configurations are elsewhere: `http://host`.
    SendsTo(&'static str),
}

/// Who may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// `user:secret`.
    Basic,
    /// A token from `/token`, for `user:secret`.
    Token,
    /// A token from another host.
    TokenAt(&'static str),
}

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    host: String,
    state: Mutex<Held>,
}

struct Held {
    mood: Mood,
    door: Door,
    manifests: BTreeMap<String, (Vec<u8>, &'static str)>,
    blobs: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
}

/// Connections over TLS.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            // A client that does not trust us hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::serve(|listener| listener).await
    }

    /// Serves over TLS, with a certificate for 127.0.0.1 that this authority signed.
    pub(crate) async fn start_tls(authority: &Pki) -> Self {
        tls::install_provider();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let certificate = authority
            .server(&[], &loopback, kinglet_process::Clock::system().now())
            .expect("a certificate");
        let shown = tls::fixed(&certificate).expect("a certificate that can be shown");
        let config = tls::server_config(authority, shown).expect("TLS");
        Self::serve(|listener| TlsListener {
            listener,
            acceptor: config.into(),
        })
        .await
    }

    async fn serve<L: axum::serve::Listener<Addr = SocketAddr>>(
        wrap: impl FnOnce(TcpListener) -> L,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let state = Held {
            mood: Mood::Fine,
            door: Door::Open,
            manifests: BTreeMap::new(),
            blobs: BTreeMap::new(),
            asked: Vec::new(),
        };
        let registry = Self(Arc::new(Inner {
            host,
            state: Mutex::new(state),
        }));
        let router = Router::new().fallback(answer).with_state(registry.clone());
        let listener = wrap(listener);
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry
    }

    pub(crate) fn host(&self) -> &str {
        &self.0.host
    }

    /// What registries.conf says about a registry of this machine.
    pub(crate) fn listed(&self) -> String {
        format!("[[registry]]\nprefix = \"{}\"\n", self.0.host)
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.0.host)
    }

    /// Serves `built` as `repository:tag`.
    pub(crate) fn push(&self, repository: &str, tag: &str, built: &Built) {
        let mut held = self.0.state.lock().expect("lock");
        held.blobs.extend(built.blobs.clone());
        for reference in [tag, &built.digest()] {
            held.manifests.insert(
                format!("{repository}/manifests/{reference}"),
                (built.manifest.clone(), built.media_type),
            );
        }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.0.state.lock().expect("lock").mood = mood;
    }

    pub(crate) fn door(&self, door: Door) {
        self.0.state.lock().expect("lock").door = door;
    }

    /// Requests whose line contains `text`.
    pub(crate) fn asked(&self, text: &str) -> usize {
        self.0
            .state
            .lock()
            .expect("lock")
            .asked
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }
}

const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

async fn answer(State(registry): State<Registry>, request: Request) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (mood, door) = {
        let mut held = registry.0.state.lock().expect("lock");
        held.asked.push(format!("{method} {path}"));
        (held.mood, held.door)
    };
    match mood {
        Mood::Hangs => return std::future::pending().await,
        Mood::Answers(status) => return plain(status, "out of order"),
        Mood::Fine | Mood::StopsHalfway | Mood::Lies | Mood::SendsTo(_) => {}
    }
    if path == "/token" {
        let query = request.uri().query().unwrap_or_default();
        return match header(request.headers(), "authorization") == BASIC && query.contains("pull") {
            true => plain(200, r#"{"token":"good"}"#),
            false => plain(401, "who are you"),
        };
    }
    if let Some(refusal) = refused(door, request.headers(), registry.host()) {
        return refusal;
    }
    if path == "/v2/" {
        return plain(200, "{}");
    }
    let held = registry.0.state.lock().expect("lock");
    if let Some((manifest, media_type)) = path
        .strip_prefix("/v2/")
        .and_then(|rest| held.manifests.get(rest))
    {
        let digest = crate::content::digest(manifest);
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            Body::from(manifest.clone())
        };
        let length = manifest.len().to_string();
        return Response::builder()
            .header("content-type", *media_type)
            .header("docker-content-digest", digest)
            .header("content-length", length)
            .body(body)
            .expect("answer");
    }
    let Some(blob) = path
        .rsplit_once("/blobs/")
        .and_then(|(_, digest)| held.blobs.get(digest))
        .cloned()
    else {
        return plain(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to the test registry"}]}"#,
        );
    };
    let layer = !blob.starts_with(b"{");
    match mood {
        Mood::Lies if layer => Response::new(Body::from(crate::content::tar(&[(
            "evil",
            "not what the digest says",
        )]))),
        Mood::SendsTo(elsewhere) => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header("location", format!("{elsewhere}{path}"))
            .body(Body::empty())
            .expect("answer"),
        Mood::StopsHalfway if layer => {
            let half = axum::body::Bytes::copy_from_slice(&blob[..blob.len() / 2]);
            let stream = futures_util::stream::unfold(Some(half), |half| async {
                match half {
                    Some(half) => Some((Ok::<_, std::io::Error>(half), None)),
                    None => {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                        None
                    }
                }
            });
            Response::builder()
                .header("content-length", blob.len())
                .body(Body::from_stream(stream))
                .expect("answer")
        }
        _ => Response::new(Body::from(blob)),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn refused(door: Door, headers: &HeaderMap, host: &str) -> Option<Response<Body>> {
    let (wanted, challenge) = match door {
        Door::Open => return None,
        Door::Basic => (BASIC, "Basic realm=\"test\"".to_owned()),
        Door::Token => (
            "Bearer good",
            format!("Bearer realm=\"http://{host}/token\",service=\"test\""),
        ),
        Door::TokenAt(elsewhere) => (
            "Bearer good",
            format!("Bearer realm=\"http://{elsewhere}/token\",service=\"test\""),
        ),
    };
    if header(headers, "authorization") == wanted {
        return None;
    }
    let mut answer = plain(
        401,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    );
    answer
        .headers_mut()
        .insert("www-authenticate", challenge.parse().expect("header"));
    Some(answer)
}

fn plain(status: u16, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::from_u16(status).expect("status");
    answer
}
