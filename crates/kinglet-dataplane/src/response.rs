//! What the gateway itself answers, and the body type of all answers. Status and text of each error are declared here.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use kinglet_decide::feed::Key;

use crate::local::LocalBody;
use crate::response_body::{StreamError, UpstreamBody};

/// Longest part of a client's words that is repeated to it.
const ECHO_BYTES_MAX: usize = 200;

/// An answer's body.
pub(crate) enum ResponseBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// A container's, as it comes.
    Streamed(Box<UpstreamBody>),
    /// A local service's, as it comes.
    Local(Box<LocalBody>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(body) => body.poll_next(cx),
            Self::Local(body) => body.poll_next(cx).map_err(StreamError::Local),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(body) => body.is_finished(),
            Self::Local(body) => body.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed(body) => body.size_hint(),
            Self::Local(body) => body.size_hint(),
        }
    }
}

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the request names no host: send a Host header")]
    NoHost,
    #[error("the request names more than one host")]
    ManyHosts,
    #[error("the request target is neither a path nor a URL")]
    Target,
    #[error("Unsupported transfer encoding")]
    TransferEncoding,
    #[error("CONNECT is not offered here")]
    Connect,
    #[error(
        "no route for host \"{host}\"\n\
         Is the Service ready and public? `kubectl get ksvc -A` lists the hosts that are served; \
         with another address, name one of them: curl -H 'Host: NAME' …"
    )]
    UnknownHost { host: String },
    #[error(
        "host \"{host}\" is not what this connection was made for: make a connection of its own for it, whose TLS handshake names it"
    )]
    Misdirected { host: String },
    #[error("no route for path \"{path}\" of host \"{host}\"")]
    UnknownPath { host: String, path: String },
    #[error("Error getting active endpoint: revision.serving.knative.dev \"{}\" not found", .key.name)]
    UnknownBackend { key: Key },
    #[error("no ready endpoint for service {key}")]
    NoEndpoint { key: Key },
    #[error("pending request queue full")]
    QueueFull,
    #[error("shutting down: Kinglet stops before this request had a response")]
    Stopping,
    #[error("activator request timeout")]
    TimeoutWaiting,
    #[error("request timeout")]
    Timeout,
    #[error("connecting to {pod} of {key}: {cause}")]
    Unreachable {
        key: Key,
        pod: String,
        cause: String,
    },
    #[error("{pod} of {key} broke off before it answered: {cause}")]
    Broken {
        key: Key,
        pod: String,
        cause: String,
    },
    #[error("a probe request must contain a non-empty \"K-Network-Hash\" header")]
    ProbeWithoutHash,
    #[error("unexpected probe header value: \"{0}\"")]
    UnexpectedProbe(String),
    #[error("unexpected probe header value: {0}")]
    UnexpectedQueueProbe(String),
    #[error("shutting down")]
    ShuttingDown,
    #[error("not ready")]
    NotReady,
    #[error("connection has not yet been established")]
    NotConnected,
    #[error("received SIGTERM from kubelet")]
    Terminating,
    #[error("internal error: this request made the gateway panic; the log says where")]
    Panicked,
}

impl ProxyError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoHost
            | Self::ManyHosts
            | Self::Target
            | Self::ProbeWithoutHash
            | Self::UnexpectedProbe(_)
            | Self::UnexpectedQueueProbe(_) => StatusCode::BAD_REQUEST,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownHost { .. } | Self::UnknownPath { .. } | Self::UnknownBackend { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::NoEndpoint { .. }
            | Self::QueueFull
            | Self::Stopping
            | Self::ShuttingDown
            | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimeoutWaiting | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable { .. } | Self::Broken { .. } => StatusCode::BAD_GATEWAY,
            Self::Panicked | Self::NotConnected | Self::Terminating => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// gRPC clients read the status from headers, whatever HTTP says.
    fn grpc_status(&self) -> &'static str {
        match self.status() {
            StatusCode::BAD_REQUEST => "3",
            StatusCode::NOT_FOUND
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => "12",
            StatusCode::GATEWAY_TIMEOUT => "4",
            StatusCode::INTERNAL_SERVER_ERROR => "13",
            _ => "14",
        }
    }

    /// The answer; `grpc` clients get theirs in their own terms as well.
    pub(crate) fn response(&self, grpc: bool) -> Response<ResponseBody> {
        let mut response = text(self.status(), format!("{self}\n"));
        if grpc {
            let headers = response.headers_mut();
            headers.insert(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(self.grpc_status()),
            );
            let first_line = self
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            if let Ok(message) = HeaderValue::from_str(&first_line.replace('%', "%25")) {
                headers.insert(HeaderName::from_static("grpc-message"), message);
            }
        }
        response
    }
}

/// A client's words, short and printable.
pub(crate) fn echo(words: &str) -> String {
    words
        .chars()
        .filter(|char| !char.is_control())
        .take(ECHO_BYTES_MAX)
        .collect()
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// 200 without a body.
pub(crate) fn ok() -> Response<ResponseBody> {
    Response::new(ResponseBody::Whole(None))
}

/// 301 to the same place over https.
pub(crate) fn to_https(host: &str, port: u16, path_and_query: &str) -> Response<ResponseBody> {
    let host = kinglet_decide::route::bare_host(host);
    let location = match port {
        443 => format!("https://{host}{path_and_query}"),
        port => format!("https://{host}:{port}{path_and_query}"),
    };
    let mut response = Response::new(ResponseBody::Whole(None));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
