//! Which client certificates the Kubernetes API believes.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::tls::{TlsError, authorities};

/// Those that the authority for clients has signed, and one more: the administrator's of a data directory that was made
/// when one authority signed everything.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    current: Arc<dyn ClientCertVerifier>,
    legacy: Option<(CertificateDer<'static>, Arc<dyn ClientCertVerifier>)>,
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    /// `legacy` is that certificate and the authority that signed it.
    pub(super) fn new(clients_pem: &str, legacy: Option<(&str, &str)>) -> Result<Self, TlsError> {
        let current = verifier(clients_pem)?;
        let legacy = match legacy {
            Some((certificate_pem, authority_pem)) => {
                let certificate = authorities(certificate_pem.as_bytes())
                    .map_err(TlsError)?
                    .remove(0);
                Some((certificate, verifier(authority_pem)?))
            }
            None => None,
        };
        let mut hints = current.root_hint_subjects().to_vec();
        if let Some((_, verifier)) = &legacy {
            hints.extend_from_slice(verifier.root_hint_subjects());
        }
        Ok(Self {
            current,
            legacy,
            hints,
        })
    }
}

/// Whether this authority signed a client certificate that holds now.
pub(super) fn has_signed(authority_pem: &str, certificate_pem: &str, now: Timestamp) -> bool {
    let Ok(verifier) = verifier(authority_pem) else {
        return false;
    };
    let Ok(certificates) = authorities(certificate_pem.as_bytes()) else {
        return false;
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier
        .verify_client_cert(&certificates[0], &[], now)
        .is_ok()
}

fn verifier(authority_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities(authority_pem.as_bytes()).map_err(TlsError)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError(error.to_string()))
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let legacy = self.legacy.as_ref();
        match legacy.filter(|(certificate, _)| certificate == end_entity) {
            Some((_, verifier)) => verifier.verify_client_cert(end_entity, &[], now),
            None => self
                .current
                .verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.supported_verify_schemes()
    }
}
