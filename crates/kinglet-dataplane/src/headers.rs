//! Headers between client and container (spec/serving.md 6.1, 6.3.1, 6.4), as runtime traces of upstream show them.

mod flags;
mod forwarded;
mod hop;
mod request_id;

#[cfg(test)]
mod tests;

use http::header::{COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

pub(crate) use flags::HeaderFlags;
pub(crate) use forwarded::Origin;
pub(crate) use hop::{has_unsupported_encoding, strip_hop, wants_upgrade};
pub(crate) use request_id::RequestIds;

use forwarded::{forwarded, forwarded_by_queue, forwarded_for_only};

use crate::role::Hop;
use crate::routes::Destination;

macro_rules! names {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(crate) const $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    REVISION = "knative-serving-revision";
    NAMESPACE = "knative-serving-namespace";
    ORIGINAL_HOST = "k-original-host";
    PROXY_REQUEST = "k-proxy-request";
    NETWORK_PROBE = "k-network-probe";
    NETWORK_HASH = "k-network-hash";
    TRACE = "k-kinglet-trace";
    REQUEST_ID = "x-request-id";
    FORWARDED_FOR = "x-forwarded-for";
    FORWARDED_PROTO = "x-forwarded-proto";
    FORWARDED_HOST = "x-forwarded-host";
    KEEP_ALIVE = "keep-alive";
    PROXY_CONNECTION = "proxy-connection";
    HTTP2_SETTINGS = "http2-settings";
}

/// The host that a request asks for: of its URI (HTTP/2, absolute form), else of its one Host header.
pub(crate) fn requested_host(parts: &Parts) -> Result<&str, HostError> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.host_and_port());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts
        .next()
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.is_empty())
        .ok_or(HostError::None)?;
    if hosts.next().is_some() {
        Err(HostError::Many)
    } else {
        Ok(host)
    }
}

/// A request without exactly one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostError {
    None,
    Many,
}

trait HostAndPort {
    fn host_and_port(&self) -> &str;
}

impl HostAndPort for Authority {
    /// Without user information.
    fn host_and_port(&self) -> &str {
        let whole = self.as_str();
        whole.rsplit_once('@').map_or(whole, |(_user, host)| host)
    }
}

/// Whether a request may be sent again when nothing of a response has come, by the rules of Go's transport.
pub(crate) fn is_retryable(method: &Method, flags: HeaderFlags) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) || flags.has(HeaderFlags::IDEMPOTENCY_KEY)
}

/// How a request is to look to its container.
pub(crate) struct Outbound<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) origin: &'a Origin,
    pub(crate) hop: Hop,
    /// The endpoint's address, as a Host header.
    pub(crate) address: &'a HeaderValue,
    pub(crate) upgrade: bool,
    /// Spoken to the container.
    pub(crate) h2: bool,
    pub(crate) request_id: &'a RequestIds,
}

/// Rewrites a request for its container.
pub(crate) fn outbound(parts: &mut Parts, flags: HeaderFlags, how: &Outbound<'_>) {
    let host = host_for(parts, flags, how);
    let client_host = (how.hop == Hop::QueueProxy)
        .then(|| client_host(parts))
        .flatten();
    let headers = &mut parts.headers;
    // Room for what is added, once.
    headers.reserve(6 + how.destination.headers.len());
    strip_hop(headers, flags, how.upgrade);
    if flags.has(HeaderFlags::TRACE) {
        headers.remove(TRACE);
    }
    match how.hop {
        Hop::Service => {
            by_gateway(headers, flags, how);
            to_service(headers, how.destination);
        }
        Hop::Whole => {
            by_gateway(headers, flags, how);
            remove_knative(headers, flags, &[REVISION, NAMESPACE, ORIGINAL_HOST]);
            by_activator(headers, flags);
        }
        Hop::QueueProxy => {
            forwarded_for_only(headers, flags, how.origin);
            if let Some(client_host) = client_host
                && !(flags.has(HeaderFlags::KNATIVE) && headers.contains_key(ORIGINAL_HOST))
            {
                headers.insert(ORIGINAL_HOST, client_host);
            }
            remove_knative(headers, flags, &[REVISION, NAMESPACE]);
            by_activator(headers, flags);
        }
        Hop::UserContainer => {
            forwarded_by_queue(headers, flags, how.origin);
            remove_knative(headers, flags, &[REVISION, NAMESPACE, ORIGINAL_HOST]);
        }
    }
    if how.h2 {
        headers.remove(HOST);
        headers.remove(EXPECT);
        parts.version = Version::HTTP_2;
        parts.uri = absolute(&parts.uri, host.as_ref());
    } else {
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        if flags.has(HeaderFlags::COOKIE) && parts.version == Version::HTTP_2 {
            join_cookies(headers);
        }
        parts.version = Version::HTTP_11;
        if parts.uri.authority().is_some() {
            parts.uri = origin_form(&parts.uri);
        }
    }
}

/// What a gateway adds.
fn by_gateway(headers: &mut HeaderMap, flags: HeaderFlags, how: &Outbound<'_>) {
    forwarded(headers, flags, how.origin);
    if !flags.has(HeaderFlags::REQUEST_ID) {
        headers.insert(REQUEST_ID, how.request_id.next());
    }
    for (name, value) in &how.destination.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// What an ordinary Service, or the component behind it, is told besides.
fn to_service(headers: &mut HeaderMap, destination: &Destination) {
    for (name, value) in &destination.service_headers {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(hash) = &destination.probe_hash
        && headers
            .get(NETWORK_HASH)
            .is_some_and(|asked| asked == "override")
    {
        headers.insert(NETWORK_HASH, hash.clone());
    }
}

fn by_activator(headers: &mut HeaderMap, flags: HeaderFlags) {
    if flags.has(HeaderFlags::NETWORK_HASH) {
        headers.remove(NETWORK_HASH);
    }
    headers.insert(PROXY_REQUEST, HeaderValue::from_static("activator"));
}

fn remove_knative(headers: &mut HeaderMap, flags: HeaderFlags, names: &[HeaderName]) {
    if flags.has(HeaderFlags::KNATIVE) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// Makes a request ready for a service of this process: its path as the URI, its host as the Host header.
pub(crate) fn to_local(
    parts: &mut Parts,
    flags: HeaderFlags,
    origin: &Origin,
    request_ids: &RequestIds,
) {
    if let Some(host) = client_host(parts) {
        parts.headers.insert(HOST, host);
    }
    let headers = &mut parts.headers;
    strip_hop(headers, flags, false);
    if flags.has(HeaderFlags::TRACE) {
        headers.remove(TRACE);
    }
    headers.remove(EXPECT);
    forwarded(headers, flags, origin);
    if !flags.has(HeaderFlags::REQUEST_ID) {
        headers.insert(REQUEST_ID, request_ids.next());
    }
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
}

/// A caller in this process has no connection to be upgraded, and nothing to wait for before its body.
pub(crate) fn from_caller(headers: &mut HeaderMap) {
    let flags = HeaderFlags::of(headers);
    strip_hop(headers, flags, false);
    headers.remove(EXPECT);
}

/// Sends a request that is on its way to a queue-proxy to the one at `address` instead.
pub(crate) fn readdress<B>(request: &mut http::Request<B>, address: &HeaderValue) {
    if request.version() == Version::HTTP_2 {
        *request.uri_mut() = absolute(request.uri(), Some(address));
    } else {
        request.headers_mut().insert(HOST, address.clone());
    }
}

fn client_host(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.host_and_port()).ok(),
        None => parts.headers.get(HOST).cloned(),
    }
}

/// The Host that the next hop sees, where it is not the one already in the headers.
fn host_for(parts: &Parts, flags: HeaderFlags, how: &Outbound<'_>) -> Option<HeaderValue> {
    let hidden = match how.hop {
        Hop::Service => None,
        Hop::Whole => how.destination.original_host.as_ref(),
        Hop::QueueProxy => Some(how.address),
        Hop::UserContainer => Some(flags)
            .filter(|flags| flags.has(HeaderFlags::KNATIVE))
            .and_then(|_| parts.headers.get(ORIGINAL_HOST))
            .filter(|host| !host.is_empty()),
    };
    let rewritten = hidden.or(how.destination.rewrite_host.as_ref());
    if let Some(host) = rewritten {
        return Some(host.clone());
    }
    if let Some(authority) = parts.uri.authority() {
        return HeaderValue::from_str(authority.host_and_port()).ok();
    }
    if how.h2 {
        parts.headers.get(HOST).cloned()
    } else {
        None
    }
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

fn absolute(uri: &Uri, host: Option<&HeaderValue>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(
        uri.path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    );
    if let Some(authority) = host.and_then(|host| Authority::try_from(host.as_bytes()).ok()) {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
    }
    Uri::from_parts(parts).unwrap_or_else(|_| origin_form(uri))
}

/// HTTP/2 may split a cookie into several fields; HTTP/1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Whether the client waits to be told before it sends its body.
pub(crate) fn expects_continue(parts: &Parts, flags: HeaderFlags) -> bool {
    flags.has(HeaderFlags::EXPECT)
        && parts.version == Version::HTTP_11
        && parts.method != Method::GET
        && parts
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
