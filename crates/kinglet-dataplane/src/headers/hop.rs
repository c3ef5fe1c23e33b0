//! What concerns one hop only: connection headers, upgrades, encodings of the transfer.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::{HTTP2_SETTINGS, HeaderFlags, KEEP_ALIVE, PROXY_CONNECTION};

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
