//! Whether a text is a certificate.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

/// Returns what is wrong with a text that is to be a certificate in PEM.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    const INVALID: &str = "CA Cert provided is invalid";
    let Ok((kind, der)) = <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()) else {
        return Some(INVALID);
    };
    if kind != SectionKind::Certificate {
        return Some("CA Cert type is not a certificate");
    }
    let der = CertificateDer::from(der);
    webpki::EndEntityCert::try_from(&der)
        .is_err()
        .then_some(INVALID)
}
