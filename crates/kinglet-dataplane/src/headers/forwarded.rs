//! Where a request comes from: X-Forwarded-For and -Proto, and Forwarded (spec/serving.md 6.3.1).

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HeaderFlags};

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

/// X-Forwarded-For grows by the client; X-Forwarded-Proto and Forwarded are added where a proxy before us did not.
pub(super) fn forwarded(headers: &mut HeaderMap, flags: HeaderFlags, origin: &Origin) {
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

/// X-Forwarded-For alone, as an activator adds to it.
pub(super) fn forwarded_for_only(headers: &mut HeaderMap, flags: HeaderFlags, origin: &Origin) {
    let chain = match flags.has(HeaderFlags::FORWARDED_FOR) {
        true => chained(headers, origin),
        false => origin.address.clone(),
    };
    headers.insert(FORWARDED_FOR, chain);
}

/// As a queue-proxy does: Forwarded, where it is missing, says what the proxies before have said; then X-Forwarded-For
/// grows by the one that sent the request.
pub(super) fn forwarded_by_queue(headers: &mut HeaderMap, flags: HeaderFlags, origin: &Origin) {
    if !flags.has(HeaderFlags::FORWARDED)
        && let Some(value) = shim(headers)
    {
        headers.insert(FORWARDED, value);
    }
    forwarded_for_only(headers, flags, origin);
}

/// `Forwarded` made of the X-Forwarded headers: `for=a;host=h;proto=p, for=b`.
fn shim(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut hops = text(FORWARDED_FOR)
        .into_iter()
        .flat_map(|chain| chain.split(','))
        .map(|hop| forwarded_for(hop.trim()));
    let client = [
        hops.next(),
        text(FORWARDED_HOST).map(|host| format!("host={host}")),
        text(FORWARDED_PROTO).map(|proto| format!("proto={proto}")),
    ];
    let client: Vec<String> = client.into_iter().flatten().collect();
    if client.is_empty() {
        return None;
    }
    let mut made = client.join(";");
    for hop in hops {
        made.push_str(", ");
        made.push_str(&hop);
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
