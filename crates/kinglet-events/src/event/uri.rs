//! URI references: what Go's `url.Parse` takes, since that is what clients meet in Knative.

/// Whether a text is a URI reference.
pub(super) fn is_reference(text: &str) -> bool {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return false;
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let Some((scheme, rest)) = scheme(text) else {
        return false;
    };
    let (path, _query) = rest.split_once('?').unwrap_or((rest, ""));
    if !escapes(fragment) {
        return false;
    }
    if scheme.is_some() && !path.starts_with('/') {
        // Opaque, such as `urn:a:b`: nothing of it is looked into.
        return true;
    }
    match path.strip_prefix("//") {
        Some(after) => {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            authority_parses(authority) && escapes(path)
        }
        None => escapes(path),
    }
}

/// Whether it is one with a scheme.
pub(super) fn is_absolute(text: &str) -> bool {
    matches!(scheme(text), Some((Some(_), _)))
}

/// The scheme and what follows its colon; `None` when a colon stands where only that of a scheme may.
fn scheme(text: &str) -> Option<(Option<&str>, &str)> {
    let Some(colon) = text.find([':', '/', '?']) else {
        return Some((None, text));
    };
    if text.as_bytes()[colon] != b':' {
        return Some((None, text));
    }
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    let legal = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    legal.then_some((Some(scheme), rest))
}

/// User, host and port.
fn authority_parses(authority: &str) -> bool {
    let host_and_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let port = if let Some(address) = host_and_port.strip_prefix('[') {
        let Some((_, port)) = address.split_once(']') else {
            return false;
        };
        port
    } else {
        let at = host_and_port.find(':').unwrap_or(host_and_port.len());
        &host_and_port[at..]
    };
    let port_parses = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    let host_parses = !authority.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']);
    port_parses && host_parses && escapes(authority)
}

/// Every `%` begins an escape of two hexadecimal digits.
fn escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes();
        let mut digit = || digits.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        digit() && digit()
    })
}
