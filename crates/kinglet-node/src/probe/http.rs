//! `httpGet`: one GET, as a kubelet makes it.
//!
//! Redirects to the same host name are followed, up to ten; one that leads elsewhere passes with a warning. No certificate is
//! verified, no compression or second request on the connection is offered.

use std::future::Future;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::request::Builder;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use url::Url;

use crate::probe::connect::{ConnectError, Connected, connect};
use crate::probe::prober::{self, ANSWER_BYTES_MAX, ProbeResult, ProbeTarget, Success};
use crate::probe::spec::HttpGet;
use crate::probe::stream::AnswerCounts;
use crate::probe::tls;

/// Go's bound on redirects of one request.
const REDIRECTS_MAX: usize = 10;

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The beginning of the body.
    pub(crate) body: String,
    pub(crate) loopback_only: Option<u16>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum GetError {
    Connect(ConnectError),
    Exchange(String),
}

impl GetError {
    /// Nobody listens there (yet).
    pub(crate) fn is_connection_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_connection_refused())
    }
}

impl std::fmt::Display for GetError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(formatter),
            Self::Exchange(message) => formatter.write_str(message),
        }
    }
}

/// A request whose answer is somebody else's to judge.
pub(crate) async fn get(
    target: &ProbeTarget,
    get: &HttpGet,
    user_agent: &str,
) -> Result<Answer, GetError> {
    let address = target.sandbox.address().to_string();
    get_from(get, &address, user_agent, |port| {
        connect(target, get.host.as_deref(), port, false)
    })
    .await
}

/// A probe: 200 to 399 pass.
pub(crate) async fn probe(target: &ProbeTarget, get: &HttpGet, from_inside: bool) -> ProbeResult {
    let address = target.sandbox.address().to_string();
    let answer = get_from(get, &address, prober::USER_AGENT, |port| {
        connect(target, get.host.as_deref(), port, from_inside)
    })
    .await;
    match answer {
        Ok(answer) => verdict(answer),
        Err(error) if error.is_connection_refused() => {
            ProbeResult::Refused(format!("Get \"{}\": {error}", get.url(&address)))
        }
        Err(error) => ProbeResult::Failure(format!("Get \"{}\": {error}", get.url(&address))),
    }
}

fn verdict(answer: Answer) -> ProbeResult {
    let Answer {
        status,
        body,
        loopback_only,
    } = answer;
    match status {
        200..=299 => ProbeResult::Success(Success {
            loopback_only,
            warning: None,
        }),
        300..=399 => ProbeResult::Success(Success {
            loopback_only,
            warning: Some(format!("Probe terminated redirects, Response body: {body}")),
        }),
        _ => ProbeResult::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Sends the request to `default_host` (or the host that it names) and follows redirects that stay there.
/// `dial` connects to a port of that one host.
pub(crate) async fn get_from<D, F>(
    get: &HttpGet,
    default_host: &str,
    user_agent: &str,
    dial: D,
) -> Result<Answer, GetError>
where
    D: Fn(u16) -> F + Send,
    F: Future<Output = Result<Connected, ConnectError>> + Send,
{
    let mut url = get.base(default_host).map_err(GetError::Exchange)?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut port = get.port;
    let mut path = path_of(&url, &get.path);
    let mut redirects = 0;
    loop {
        let connected = dial(port).await.map_err(GetError::Connect)?;
        let loopback_only = connected.loopback_only.then_some(port);
        let request = request(get, &host, port, &path, user_agent).map_err(GetError::Exchange)?;
        let response = if url.scheme() == "https" {
            let stream = tls::wrap(connected.stream, get.host.as_deref())
                .await
                .map_err(|error| GetError::Exchange(error.to_string()))?;
            exchange(stream, request).await
        } else {
            exchange(connected.stream, request).await
        };
        let (head, body) = response.map_err(GetError::Exchange)?;
        let Some(next) = same_host_redirect(&url.join(path.as_str()).unwrap_or(url.clone()), &head)
        else {
            return Ok(Answer {
                status: head.status.as_u16(),
                body,
                loopback_only,
            });
        };
        redirects += 1;
        if redirects >= REDIRECTS_MAX {
            return Err(GetError::Exchange(format!(
                "stopped after {REDIRECTS_MAX} redirects"
            )));
        }
        port = next.port_or_known_default().unwrap_or(port);
        path = path_of(
            &next,
            &next[url::Position::BeforePath..url::Position::AfterQuery],
        );
        url = next;
    }
}

/// Path and query as written where HTTP can carry them, else percent-encoded.
fn path_of(base: &Url, path: &str) -> PathAndQuery {
    let path = path.split('#').next().unwrap_or_default();
    let slashed = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    slashed.parse().unwrap_or_else(|_| {
        let mut encoded = base.clone();
        let (path, query) = match slashed.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (slashed.as_str(), None),
        };
        encoded.set_path(path);
        encoded.set_query(query);
        encoded[url::Position::BeforePath..url::Position::AfterQuery]
            .parse()
            .unwrap_or_else(|_| PathAndQuery::from_static("/"))
    })
}

/// Where a redirect leads, if it is one that stays on the host (any port, any scheme).
fn same_host_redirect(url: &Url, head: &http::response::Parts) -> Option<Url> {
    if !matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = head.headers.get(LOCATION)?.to_str().ok()?;
    let next = url.join(location).ok()?;
    let stays = matches!(next.scheme(), "http" | "https") && next.host_str() == url.host_str();
    stays.then_some(next)
}

fn request(
    get: &HttpGet,
    host: &str,
    port: u16,
    path: &PathAndQuery,
    user_agent: &str,
) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut request: Builder = http::Request::get(path.as_str());
    let mut own = Vec::new();
    for (name, value) in &get.headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is no header name"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("{value:?} is no value of the header {name}"))?;
        own.push(name.clone());
        // An empty User-Agent or Accept says that none is to be sent.
        if value.is_empty() && (name == USER_AGENT || name == ACCEPT) {
            continue;
        }
        request = request.header(name, value);
    }
    for (name, value) in [
        (HOST, format!("{host}:{port}")),
        (USER_AGENT, user_agent.to_owned()),
        (ACCEPT, "*/*".to_owned()),
        (CONNECTION, "close".to_owned()),
    ] {
        if !own.contains(&name) {
            request = request.header(name, value);
        }
    }
    request
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

/// One request and the beginning of its answer.
async fn exchange<S>(
    stream: S,
    request: http::Request<Empty<Bytes>>,
) -> Result<(http::response::Parts, String), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(TokioIo::new(AnswerCounts::new(stream)))
        .await
        .map_err(|error| words(&error))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| words(&error))?;
        let (head, body) = response.into_parts();
        Ok((head, beginning(body).await?))
    };
    // The connection moves the bytes and may end first: what it has read by then is still on its way to `answer`, which alone
    // knows whether it was enough. With the answer it is dropped: nothing stays behind.
    let driver = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driver => never,
    }
}

/// What a body begins with; the rest is not waited for.
async fn beginning(mut body: Incoming) -> Result<String, String> {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Some(data) = frame.map_err(|error| words(&error))?.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "EOF".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
