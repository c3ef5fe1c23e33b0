//! The identity in a client certificate: just enough DER to read its subject.

use kinglet_process::tls::der::any;
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

/// Common name and organisations of the subject, in order.
fn attributes(certificate: &[u8]) -> Option<Vec<(Attribute, String)>> {
    let (_, certificate, _) = any(certificate)?;
    let (_, mut fields, _) = any(certificate)?;
    // version (optional), serial, algorithm, issuer, validity, then the subject.
    if any(fields)?.0 == 0xa0 {
        fields = any(fields)?.2;
    }
    for _ in 0..4 {
        fields = any(fields)?.2;
    }
    let (_, mut names, _) = any(fields)?;
    let mut found = Vec::new();
    while let Some((_, mut set, rest)) = any(names) {
        while let Some((_, pair, more)) = any(set) {
            let (_, kind, value) = any(pair)?;
            let text = || any(value).map(|(_, text, _)| String::from_utf8_lossy(text).into_owned());
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
