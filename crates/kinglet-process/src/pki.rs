//! The machine's own certificate authorities and what they sign.
//!
//! Three that cannot stand in for each other: for clients of the Kubernetes API (`client-ca`), for listeners of Kinglet
//! itself (`ca`, which kubeconfigs and pods trust), and for hosts that browsers ask for ([`Browsers`]). Their keys are
//! files of mode 0600 in the data directory and never change, so that kubeconfigs written once stay good.
//! A data directory of the time when one authority signed everything goes on: its administrator's certificate, and that
//! one alone, is believed although the authority for clients has not signed it.

mod authority;
mod browsers;
mod clients;
mod file;
mod rotation;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::server::danger::ClientCertVerifier;

pub use authority::Names;
pub use browsers::{BrowserError, Browsers};
pub use rotation::ServerCredential;

use crate::private::{self, PrivateError};
use crate::tls::{TlsError, validity_of_pem};
use authority::{Authority, Purpose, subject};
use clients::ClientVerifier;

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Reading or writing a file.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Writing a key or certificate.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Making or parsing a key or certificate.
    #[error("{what}: {source}")]
    Certificate {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// A certificate that we made cannot be shown.
    #[error("issuing a server certificate: {0}")]
    Unusable(String),
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Credential {
    /// Certificate.
    pub certificate_pem: String,
    /// PKCS#8 private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// The authorities and the long-lived credentials.
#[derive(Clone)]
pub struct Pki {
    /// The certificate of the authority for our own listeners, for clients.
    pub ca_pem: String,
    /// The administrator: `CN=kinglet-admin, O=system:masters`.
    pub admin: Credential,
    /// Signs service account tokens (PKCS#8, P-256).
    pub service_account_key_pem: String,
    /// For hosts of this machine.
    pub browsers: Browsers,
    internal: Arc<Authority>,
    clients: Arc<Authority>,
    /// The administrator's certificate of before there were several authorities.
    legacy_admin: Option<String>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki(…)")
    }
}

impl Pki {
    /// Opens or makes everything below `folder`.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, PkiError> {
        private::directory(folder)?;
        let internal = Authority::open(folder, "ca", "kinglet-ca", &[], now)?;
        let clients = Authority::open(folder, "client-ca", "kinglet-client-ca", &[], now)?;
        let legacy_path = folder.join("admin-legacy.crt");
        let admin = administrator(folder, &legacy_path, &clients, now)?;
        Ok(Self {
            ca_pem: internal.certificate_pem.clone(),
            admin,
            service_account_key_pem: file::key(&folder.join("service-account.key"))?
                .serialize_pem(),
            browsers: Browsers::in_folder(folder),
            internal: Arc::new(internal),
            clients: Arc::new(clients),
            legacy_admin: file::read(&legacy_path)?,
        })
    }

    /// A certificate for our listeners, good for `hosts` and `addresses`, as of `now`.
    pub fn server(
        &self,
        hosts: &[String],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<Credential, PkiError> {
        let names = Names {
            hosts: hosts.to_vec(),
            addresses: addresses.to_vec(),
        };
        self.issue(&names, now)
    }

    /// The same.
    pub fn issue(&self, names: &Names, now: Timestamp) -> Result<Credential, PkiError> {
        self.internal.server(names, now)
    }

    /// Which client certificates the Kubernetes API believes.
    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let legacy = self.legacy_admin.as_deref();
        let legacy = legacy.map(|certificate| (certificate, self.ca_pem.as_str()));
        let verifier = ClientVerifier::new(&self.clients.certificate_pem, legacy)?;
        Ok(Arc::new(verifier))
    }
}

/// The administrator's credential: the one there is while the authority for clients has signed it and it has a third of its
/// life left, else a new one for the same key. One that another authority signed is kept beside it.
fn administrator(
    folder: &Path,
    legacy_path: &Path,
    clients: &Authority,
    now: Timestamp,
) -> Result<Credential, PkiError> {
    let (key, path) = (
        file::key(&folder.join("admin.key"))?,
        folder.join("admin.crt"),
    );
    let credential = |certificate_pem: String| Credential {
        certificate_pem,
        key_pem: key.serialize_pem(),
    };
    if let Some(pem) = file::read(&path)? {
        let ours = clients::has_signed(&clients.certificate_pem, &pem, now);
        let fresh = validity_of_pem(&pem).is_some_and(|validity| now < validity.renew_at());
        if ours && fresh {
            return Ok(credential(pem));
        }
        if !ours && !legacy_path.exists() {
            private::write(legacy_path, &pem)?;
        }
    }
    let subject = subject("kinglet-admin", Some("system:masters"));
    let pem = clients.sign(&key, Purpose::Client, subject, &Names::default(), now)?;
    private::write(&path, &pem)?;
    Ok(credential(pem))
}

fn failed(what: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate {
        what: what.to_owned(),
        source,
    }
}
