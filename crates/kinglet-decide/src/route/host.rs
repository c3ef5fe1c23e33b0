//! Host names as clients send them: any case, perhaps a port, perhaps a final dot.

/// Longest name that DNS allows; anything longer matches no route.
const HOST_BYTES_MAX: usize = 253;

/// `host` without port and final dot; brackets of an IPv6 address stay.
pub fn bare(host: &str) -> &str {
    let name = if host.starts_with('[') {
        match host.find(']') {
            Some(end) => &host[..=end],
            None => host,
        }
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Calls `then` with the bare host in lower case, on the stack; `None` when it is too long to be one.
pub(super) fn with_lower_case<T>(host: &str, then: impl FnOnce(&str) -> T) -> Option<T> {
    let name = bare(host);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return (name.len() <= HOST_BYTES_MAX).then(|| then(name));
    }
    let mut buffer = [0u8; HOST_BYTES_MAX];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok().map(then)
}
