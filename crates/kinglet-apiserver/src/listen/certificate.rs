//! The identity in a client certificate: just enough DER to read its subject.

use rustls::pki_types::CertificateDer;

use crate::identity::Identity;

/// Returns the user (CN) and groups (O) of a certificate that rustls has verified.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (mut name, mut groups) = (String::new(), Vec::new());
    for (kind, value) in attributes(certificate)? {
        match kind {
            Attribute::CommonName => name = value,
            Attribute::Organization => groups.push(value),
        }
    }
    (!name.is_empty()).then(|| Identity::remote(&name, groups))
}

/// The attributes that say who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    CommonName,
    Organization,
}

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// One element: tag, content, rest.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (digits, rest) = rest.split_at(count);
        (
            digits
                .iter()
                .fold(0usize, |sum, digit| (sum << 8) | usize::from(*digit)),
            rest,
        )
    };
    if rest.len() < length {
        return None;
    }
    let (content, rest) = rest.split_at(length);
    Some((tag, content, rest))
}

/// Common name and organisations of the subject, in order.
fn attributes(certificate: &[u8]) -> Option<Vec<(Attribute, String)>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // version (optional), serial, algorithm, issuer, validity, then the subject.
    if element(fields)?.0 == 0xa0 {
        fields = element(fields)?.2;
    }
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (_, mut names, _) = element(fields)?;
    let mut found = Vec::new();
    while let Some((_, mut set, rest)) = element(names) {
        while let Some((_, pair, more)) = element(set) {
            let (_, kind, value) = element(pair)?;
            let text =
                || element(value).map(|(_, text, _)| String::from_utf8_lossy(text).into_owned());
            match kind {
                COMMON_NAME => found.push((Attribute::CommonName, text()?)),
                ORGANIZATION => found.push((Attribute::Organization, text()?)),
                _ => {}
            }
            set = more;
        }
        names = rest;
    }
    Some(found)
}
