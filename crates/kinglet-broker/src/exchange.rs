//! One attempt: a request, redirects, the answer read up to its bounds, all within the timeout.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use kinglet_decide::call::CallBody;
use kinglet_events::Event;
use kinglet_events::binding::{self, Format, Mode};
use url::Url;

use crate::access::Tokens;
use crate::answer::Answer;
use crate::body::{self, Room};
use crate::feed::{Destination, ServiceAccount};
use crate::transport::Transport;

/// Redirects that are followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;
/// What is not read of a successful answer, since it is no event, may come for so long: the connection can be used again
/// then.
const REST_WAIT: Duration = Duration::from_millis(200);

/// What calls need.
pub(crate) struct Outgoing {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tokens: Arc<dyn Tokens>,
}

/// One request to be made.
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) event: &'a Event,
    pub(crate) format: Format,
    pub(crate) headers: HeaderMap,
    pub(crate) identity: Option<&'a ServiceAccount>,
    /// Room for large answers.
    pub(crate) room: &'a Room,
}

/// Why there was no answer, as Knative words it: `dispatch error: Post "http://…": …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer(pub(crate) String);

impl NoAnswer {
    pub(crate) fn new(url: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("dispatch error: Post {url:?}: {why}"))
    }
}

/// Bounds an attempt.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    url: &str,
    attempt: impl Future<Output = Result<T, NoAnswer>>,
) -> Result<T, NoAnswer> {
    match timeout {
        None => attempt.await,
        Some(timeout) => tokio::time::timeout(timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(NoAnswer::new(url, "context deadline exceeded"))),
    }
}

/// Sends an event and reads the answer.
pub(crate) async fn post(outgoing: &Outgoing, call: Call<'_>) -> Result<Answer, NoAnswer> {
    let url = &*call.destination.url;
    let failed = |why: &dyn std::fmt::Display| NoAnswer::new(url, why);
    let mut headers = call.headers;
    let payload = binding::encode(call.event, call.format, &mut headers);
    if let (Some(audience), Some(identity)) = (&call.destination.audience, call.identity) {
        let token = outgoing.tokens.token(identity, audience).await;
        let token = token.map_err(|why| {
            failed(&format!(
                "asking for a token of ServiceAccount {identity} for {audience}: {why}"
            ))
        })?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| failed(&"the token is no header value"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut hop = Hop {
        url: Url::parse(url).map_err(|error| failed(&error))?,
        method: Method::POST,
        headers,
        payload,
    };
    for _ in 0..=REDIRECTS_MAX {
        let request = hop.request().map_err(|why| failed(&why))?;
        let sent = outgoing.transport.send(call.destination, request).await;
        let answer = sent.map_err(|error| failed(&error))?;
        match hop.redirected(answer.status(), answer.headers()) {
            Some(next) => hop = next,
            None => return read(answer, call.room).await.map_err(|why| failed(&why)),
        }
    }
    Err(failed(&format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// Reads what of an answer matters: all of an event, the beginning of what is none.
async fn read(
    answer: http::Response<CallBody>,
    room: &Room,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = answer.into_parts();
    let is_event = parts.status.is_success() && binding::mode(&parts.headers) != Mode::None;
    let bytes = if is_event {
        body::read(body, Some(room), None).await?.bytes
    } else if parts.status.is_success() {
        body::read_first(body, REST_WAIT).await
    } else {
        body::read_beginning(body).await
    };
    Ok(Answer::from_parts(parts, bytes))
}

/// A request on its way.
struct Hop {
    url: Url,
    method: Method,
    headers: HeaderMap,
    payload: Bytes,
}

impl Hop {
    fn request(&self) -> Result<Request<Bytes>, String> {
        if !matches!(self.url.scheme(), "http" | "https") {
            return Err(format!(
                "unsupported protocol scheme {:?}",
                self.url.scheme()
            ));
        }
        let uri: Uri = self
            .url
            .as_str()
            .parse()
            .map_err(|error| format!("{} is no URL of a sink: {error}", self.url))?;
        let mut request = Request::new(self.payload.clone());
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(authority) = uri.authority() {
            // Without user and password.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            if let Ok(host) = HeaderValue::from_str(host) {
                request.headers_mut().insert(HOST, host);
            }
        }
        *request.uri_mut() = uri;
        Ok(request)
    }

    /// Where an answer leads; none when it is the last one. 307 and 308 repeat the request, the others ask anew.
    fn redirected(&self, status: StatusCode, answer: &HeaderMap) -> Option<Self> {
        let repeats = match status.as_u16() {
            301..=303 => false,
            307 | 308 => true,
            _ => return None,
        };
        let url = self.url.join(answer.get(LOCATION)?.to_str().ok()?).ok()?;
        let mut headers = self.headers.clone();
        if url.host_str() != self.url.host_str() || url.scheme() != self.url.scheme() {
            headers.remove(AUTHORIZATION);
        }
        let (method, payload) = if repeats {
            (self.method.clone(), self.payload.clone())
        } else {
            headers.remove(http::header::CONTENT_TYPE);
            (Method::GET, Bytes::new())
        };
        Some(Self {
            url,
            method,
            headers,
            payload,
        })
    }
}
