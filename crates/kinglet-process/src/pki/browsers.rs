//! The authority that people let their browsers trust: made when first asked, and held to the domains of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{ServerName, UnixTime};

use super::authority::{Authority, Names};
use super::{Credential, PkiError};
use crate::tls::authorities;

const STEM: &str = "browser-ca";
/// Every machine's own name, and all names below it.
const LOCALHOST: &str = "localhost";

/// Signs the certificates of hosts that this machine serves. Clones share it.
#[derive(Clone, Debug)]
pub struct Browsers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    authority: Mutex<Option<Arc<Authority>>>,
}

/// Why a host has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// The authority's constraints do not allow it.
    #[error(
        "{host} is outside the domains that the authority for browsers in {path} was made for; remove {path} and the .key beside it to have it made anew, and let browsers trust that one"
    )]
    Outside {
        /// The host.
        host: String,
        /// The authority's certificate.
        path: String,
    },
    /// Anything else.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Browsers {
    /// The authority in this folder, which need not be there yet.
    pub fn in_folder(folder: &Path) -> Self {
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            authority: Mutex::default(),
        }))
    }

    /// Where its certificate is, or will be.
    pub fn certificate_path(&self) -> PathBuf {
        self.0.folder.join(format!("{STEM}.crt"))
    }

    /// A certificate for these hosts and the authority's own, as PEM. `domains` are what an authority that is yet to be made
    /// may sign for, beside localhost.
    pub fn issue(
        &self,
        hosts: &[String],
        domains: &[String],
        now: Timestamp,
    ) -> Result<(Credential, String), BrowserError> {
        let authority = self.authority(domains, now)?;
        let signed = |hosts: &[String]| {
            let names = Names {
                hosts: hosts.to_vec(),
                addresses: Vec::new(),
            };
            authority.server(&names, now)
        };
        let believed =
            |made: &Credential, host: &str| accepted(&authority.certificate_pem, made, host, now);
        let credential = signed(hosts)?;
        if hosts.iter().all(|host| believed(&credential, host)) {
            return Ok((credential, authority.certificate_pem.clone()));
        }
        // One name that is not allowed spoils the whole certificate; this finds it.
        let mut outside = hosts.first();
        for host in hosts {
            if !believed(&signed(std::slice::from_ref(host))?, host) {
                outside = Some(host);
                break;
            }
        }
        Err(BrowserError::Outside {
            host: outside.cloned().unwrap_or_default(),
            path: self.certificate_path().display().to_string(),
        })
    }

    /// Whether this certificate is one that clients who trust the authority of today believe.
    pub fn has_signed(
        &self,
        certificate_pem: &str,
        host: &str,
        domains: &[String],
        now: Timestamp,
    ) -> bool {
        let Ok(authority) = self.authority(domains, now) else {
            return false;
        };
        let credential = Credential {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: String::new(),
        };
        accepted(&authority.certificate_pem, &credential, host, now)
    }

    fn authority(&self, domains: &[String], now: Timestamp) -> Result<Arc<Authority>, PkiError> {
        let mut held = self.0.authority.lock();
        if let Some(authority) = &*held {
            return Ok(Arc::clone(authority));
        }
        let mut constraints = vec![LOCALHOST.to_owned()];
        for domain in domains {
            let below = |of: &String| domain == of || domain.ends_with(&format!(".{of}"));
            if !constraints.iter().any(below) {
                constraints.push(domain.clone());
            }
        }
        let authority = Authority::open(
            &self.0.folder,
            STEM,
            "Kinglet, hosts of this machine",
            &constraints,
            now,
        )?;
        let authority = Arc::new(authority);
        *held = Some(Arc::clone(&authority));
        Ok(authority)
    }
}

/// Asks what a client asks: does it believe this certificate for the host?
fn accepted(authority_pem: &str, credential: &Credential, host: &str, now: Timestamp) -> bool {
    let asked = || {
        let mut roots = RootCertStore::empty();
        for root in authorities(authority_pem.as_bytes()).ok()? {
            roots.add(root).ok()?;
        }
        let chain = authorities(credential.certificate_pem.as_bytes()).ok()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .ok()?;
        // A wildcard is asked for by one of its names.
        let host = host.replacen('*', "any", 1);
        let name = ServerName::try_from(host).ok()?;
        let seconds = u64::try_from(now.as_second()).ok()?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier
            .verify_server_cert(&chain[0], &[], &name, &[], now)
            .ok()
    };
    asked().is_some()
}
