//! TLS for listeners: what they show, and whose client certificates the Kubernetes API believes.

mod certificate;
pub mod der;
mod validity;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ResolvesServerCert;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};

pub use certificate::{CHAIN_BYTES_MAX, KEY_BYTES_MAX, ServerCertificate};
pub use validity::Validity;

use crate::pki::{Credential, Pki};

/// A configuration that could not be built.
#[derive(Debug, thiserror::Error)]
#[error("setting up TLS: {0}")]
pub struct TlsError(pub(crate) String);

/// Makes aws-lc-rs the one provider; call it first thing in `main`.
pub fn install_provider() {
    // A second call (tests share a process) finds the same provider in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Certificates to trust, from the text of a PEM file. Each must be one that can be trusted: a library that skips what it
/// cannot read would leave its user with an authority that is none.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("it is no PEM file: {error}"))?;
    if certificates.is_empty() {
        return Err("it holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            let number = index + 1;
            format!("certificate number {number} in it cannot be read: {error}")
        })?;
    }
    Ok(certificates)
}

/// When the first certificate in this text holds.
pub(crate) fn validity_of_pem(pem: &str) -> Option<Validity> {
    Validity::of(authorities(pem.as_bytes()).ok()?.first()?)
}

/// A certificate that a listener shows as long as it lives.
pub fn fixed(server: &Credential) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let certificate =
        ServerCertificate::from_pem(server.certificate_pem.as_bytes(), server.key_pem.as_bytes())
            .map_err(TlsError)?;
    Ok(Arc::new(SingleCertAndKey::from(certificate.certified)))
}

/// Server side of the Kubernetes API: h2 and http/1.1, client certificates welcome but not demanded.
pub fn server_config(
    pki: &Pki,
    shown: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?
        .with_client_cert_verifier(pki.client_verifier()?)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_certificate_that_can_be_read() {
        let pem = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let key = rcgen::KeyPair::generate().expect("key");
        let real = rcgen::CertificateParams::new(vec!["a.test".to_owned()])
            .and_then(|parameters| parameters.self_signed(&key))
            .expect("certificate")
            .pem();
        assert_eq!(authorities(real.as_bytes()).expect("one").len(), 1);
        let bundle = format!("a comment\n{real}{real}");
        assert_eq!(authorities(bundle.as_bytes()).expect("two").len(), 2);
        for (text, wanted) in [
            (String::new(), "no certificate"),
            ("hello".to_owned(), "no certificate"),
            (key.serialize_pem(), "no certificate"),
            (pem("!!!"), "no PEM"),
            (pem("Z2FyYmFnZQ=="), "number 1"),
            (format!("{real}{}", pem("Z2FyYmFnZQ==")), "number 2"),
            (real.replace("-----END CERTIFICATE-----", ""), "no PEM"),
        ] {
            let error = authorities(text.as_bytes()).expect_err(&text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
