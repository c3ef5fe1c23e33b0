//! The certificate of a listener, renewed while it is shown.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Names, Pki, PkiError};
use crate::clock::Clock;
use crate::tls::ServerCertificate;

/// How often it is looked at: a machine that slept, or whose clock was set, is noticed within an hour.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Pause after it could not be renewed; a third of its life is left then.
const RETRY: Duration = Duration::from_secs(60);

/// What a listener shows: a certificate of the internal authority. Clones share it.
#[derive(Clone)]
pub struct ServerCredential(Arc<Inner>);

struct Inner {
    pki: Pki,
    names: Names,
    clock: Clock,
    shown: RwLock<ServerCertificate>,
}

impl ServerCredential {
    /// Issues the first certificate for these names.
    pub fn issue(pki: &Pki, names: Names, clock: Clock) -> Result<Self, PkiError> {
        let first = certificate(pki, &names, &clock)?;
        Ok(Self(Arc::new(Inner {
            pki: pki.clone(),
            names,
            clock,
            shown: RwLock::new(first),
        })))
    }

    /// Renews it after two thirds of its life, again and again. Connections that are open keep what they have seen.
    pub async fn keep_fresh(self) {
        loop {
            let due = self.0.shown.read().validity.renew_at();
            let left = due.duration_since(self.0.clock.now());
            if let Ok(left) = Duration::try_from(left)
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
                continue;
            }
            match certificate(&self.0.pki, &self.0.names, &self.0.clock) {
                Ok(renewed) => {
                    tracing::info!(until = %renewed.validity.not_after, "server certificate renewed");
                    *self.0.shown.write() = renewed;
                }
                Err(error) => {
                    tracing::error!(
                        "{error}; the server certificate is not renewed, it is tried again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn certificate(pki: &Pki, names: &Names, clock: &Clock) -> Result<ServerCertificate, PkiError> {
    let credential = pki.issue(names, clock.now())?;
    ServerCertificate::from_pem(
        credential.certificate_pem.as_bytes(),
        credential.key_pem.as_bytes(),
    )
    .map_err(PkiError::Unusable)
}

impl ResolvesServerCert for ServerCredential {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.shown.read().certified))
    }
}

impl std::fmt::Debug for ServerCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCredential({:?})", self.0.names)
    }
}
