//! TLS for the API listener: our certificate, and client certificates that our authority signed.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::pki::{Credential, Pki};

/// A configuration that could not be built.
#[derive(Debug, thiserror::Error)]
#[error("setting up TLS: {0}")]
pub struct TlsError(String);

/// Makes aws-lc-rs the one provider; call it first thing in `main`.
pub fn install_provider() {
    // A second call (tests share a process) finds the same provider in place.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Server side: h2 and http/1.1, client certificates welcome but not demanded.
pub fn server_config(pki: &Pki, server: &Credential) -> Result<Arc<ServerConfig>, TlsError> {
    let fail = |error: &dyn std::fmt::Display| TlsError(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pki.ca_pem.as_bytes()) {
        roots
            .add(certificate.map_err(|error| fail(&error))?)
            .map_err(|error| fail(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .map_err(|error| fail(&error))?;
    let chain = CertificateDer::pem_slice_iter(server.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail(&error))?;
    let key =
        PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).map_err(|error| fail(&error))?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| fail(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
