//! Headers between client and container (spec/serving.md 6.1, 6.3.1, 6.4), as runtime traces of upstream show them.

mod flags;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

pub(crate) use flags::HeaderFlags;

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

/// What a connection adds to each of its requests, made once.
pub(crate) struct Origin {
    address: HeaderValue,
    forwarded: HeaderValue,
    scheme: HeaderValue,
}

impl Origin {
    pub(crate) fn new(peer: IpAddr, tls: bool) -> Self {
        let peer = peer.to_canonical();
        let scheme = if tls { "https" } else { "http" };
        let text = |text: String| HeaderValue::from_str(&text).expect("addresses are plain ASCII");
        Self {
            address: text(peer.to_string()),
            forwarded: text(format!(
                "{};proto={scheme}",
                forwarded_for(&peer.to_string())
            )),
            scheme: HeaderValue::from_static(scheme),
        }
    }
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

/// Whether the client wants another protocol than HTTP on this connection. `Upgrade: h2c` is no such wish: curl and Java
/// send it by habit, and the answer to it is to go on with HTTP/1.1.
pub(crate) fn wants_upgrade(parts: &Parts, flags: HeaderFlags) -> bool {
    flags.has(HeaderFlags::UPGRADE)
        && parts.version == Version::HTTP_11
        && parts
            .headers
            .get(UPGRADE)
            .is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && lists(&parts.headers, CONNECTION, "upgrade")
}

/// Whether a comma-separated header has `token`.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Whether the body has an encoding for this hop that is not simply `chunked`: it can neither be undone nor passed on,
/// since the next hop frames the body anew. Go refuses it as well, in both directions.
pub(crate) fn has_unsupported_encoding(headers: &HeaderMap, flags: HeaderFlags) -> bool {
    if !flags.has(HeaderFlags::TRANSFER_ENCODING) {
        return false;
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let plain = encodings
        .next()
        .is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    !plain || encodings.next().is_some()
}

/// Whether a request may be sent again when nothing of a response has come, by the rules of Go's transport.
pub(crate) fn is_retryable(method: &Method, flags: HeaderFlags) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) || flags.has(HeaderFlags::IDEMPOTENCY_KEY)
}

/// Removes what concerns only one hop. An upgrade is passed on, rebuilt.
pub(crate) fn strip_hop(headers: &mut HeaderMap, flags: HeaderFlags, keep_upgrade: bool) {
    if flags.has(HeaderFlags::CONNECTION) {
        // Usually `keep-alive` or `close`; anything else names headers to leave behind. Whom a request is for and where it
        // ends is no matter of one hop, whatever a client says.
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|connection| connection.to_str().ok())
            .flat_map(|connection| connection.split(','))
            .map(str::trim)
            .filter(|token| {
                !["close", "keep-alive", "upgrade", "te"]
                    .iter()
                    .any(|usual| token.eq_ignore_ascii_case(usual))
            })
            .filter_map(|token| HeaderName::try_from(token).ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    if flags.has(HeaderFlags::HOP) {
        for name in [
            KEEP_ALIVE,
            PROXY_CONNECTION,
            TRANSFER_ENCODING,
            PROXY_AUTHENTICATE,
            PROXY_AUTHORIZATION,
            HTTP2_SETTINGS,
        ] {
            headers.remove(name);
        }
    }
    if flags.has(HeaderFlags::TE) {
        let trailers = lists(headers, TE, "trailers");
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if keep_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if flags.has(HeaderFlags::UPGRADE) {
        headers.remove(UPGRADE);
    }
}

/// How a request is to look to its container.
pub(crate) struct Outbound<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) origin: &'a Origin,
    /// The backend is a Revision.
    pub(crate) revision: bool,
    pub(crate) upgrade: bool,
    /// Spoken to the container.
    pub(crate) h2: bool,
    pub(crate) request_id: &'a RequestIds,
}

/// Rewrites a request for its container.
pub(crate) fn outbound(parts: &mut Parts, flags: HeaderFlags, how: &Outbound<'_>) {
    let host = host_for(parts, how);
    let headers = &mut parts.headers;
    // Room for what is added, once.
    headers.reserve(6 + how.destination.headers.len());
    strip_hop(headers, flags, how.upgrade);
    if flags.has(HeaderFlags::TRACE) {
        headers.remove(TRACE);
    }
    forwarded(headers, flags, how.origin);
    if !flags.has(HeaderFlags::REQUEST_ID) {
        headers.insert(REQUEST_ID, how.request_id.next());
    }
    for (name, value) in &how.destination.headers {
        headers.insert(name.clone(), value.clone());
    }
    if how.revision {
        if flags.has(HeaderFlags::KNATIVE) {
            for name in [REVISION, NAMESPACE, ORIGINAL_HOST] {
                headers.remove(name);
            }
        }
        if flags.has(HeaderFlags::NETWORK_HASH) {
            headers.remove(NETWORK_HASH);
        }
        headers.insert(PROXY_REQUEST, HeaderValue::from_static("activator"));
    } else {
        for (name, value) in &how.destination.service_headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(hash) = &how.destination.probe_hash
            && headers
                .get(NETWORK_HASH)
                .is_some_and(|asked| asked == "override")
        {
            headers.insert(NETWORK_HASH, hash.clone());
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

/// The Host that the container sees, where it is not the one already in the headers.
fn host_for(parts: &Parts, how: &Outbound<'_>) -> Option<HeaderValue> {
    let hidden = how
        .destination
        .original_host
        .as_ref()
        .filter(|_| how.revision);
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

/// X-Forwarded-For grows by the client; X-Forwarded-Proto and Forwarded are added where a proxy before us did not.
fn forwarded(headers: &mut HeaderMap, flags: HeaderFlags, origin: &Origin) {
    let chain = flags
        .has(HeaderFlags::FORWARDED_FOR)
        .then(|| chained(headers, origin));
    let plain = chain.is_none()
        && !flags.has(HeaderFlags::FORWARDED_PROTO)
        && !flags.has(HeaderFlags::FORWARDED_HOST);
    headers.insert(
        FORWARDED_FOR,
        chain.unwrap_or_else(|| origin.address.clone()),
    );
    if !flags.has(HeaderFlags::FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, origin.scheme.clone());
    }
    if flags.has(HeaderFlags::FORWARDED) {
        return;
    }
    let value = if plain {
        Some(origin.forwarded.clone())
    } else {
        shim(headers)
    };
    if let Some(value) = value {
        headers.insert(FORWARDED, value);
    }
}

fn chained(headers: &HeaderMap, origin: &Origin) -> HeaderValue {
    let mut chain = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(origin.address.as_bytes());
    HeaderValue::from_bytes(&chain).unwrap_or_else(|_| origin.address.clone())
}

/// `Forwarded` made of the X-Forwarded headers: `for=a;host=h;proto=p, for=b`.
fn shim(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut made = String::new();
    for (at, hop) in text(FORWARDED_FOR)?.split(',').map(str::trim).enumerate() {
        if at > 0 {
            made.push_str(", ");
        }
        made.push_str(&forwarded_for(hop));
        if at == 0 {
            for (name, value) in [
                ("host", text(FORWARDED_HOST)),
                ("proto", text(FORWARDED_PROTO)),
            ] {
                if let Some(value) = value {
                    made.push_str(&format!(";{name}={value}"));
                }
            }
        }
    }
    HeaderValue::from_str(&made).ok()
}

fn forwarded_for(hop: &str) -> String {
    if hop.contains(':') && !hop.starts_with('[') {
        format!("for=\"[{hop}]\"")
    } else {
        format!("for={hop}")
    }
}

/// Makes X-Request-Id values: unique, not secret.
pub(crate) struct RequestIds {
    key: u64,
    count: std::sync::atomic::AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(key: u64) -> Self {
        Self {
            key,
            count: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// In the shape of a version 4 UUID.
    pub(crate) fn next(&self) -> HeaderValue {
        let count = self
            .count
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let high = mix(self.key ^ count) & !0xf000 | 0x4000;
        let low = mix(self.key.rotate_left(32).wrapping_add(count)) & !(0b11 << 62) | 0b10 << 62;
        let bits = u128::from(high) << 64 | u128::from(low);
        let mut text = *b"00000000-0000-4000-8000-000000000000";
        let mut digit = 0;
        for place in &mut text {
            if *place != b'-' {
                *place = b"0123456789abcdef"[(bits >> (124 - 4 * digit)) as usize & 0xf];
                digit += 1;
            }
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
    }
}

/// splitmix64's finaliser.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
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
