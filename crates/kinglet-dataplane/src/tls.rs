//! Certificates by server name, swapped without touching open connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates that https listeners show. Clones share one set.
#[derive(Clone, Default)]
pub struct Certificates {
    by_name: Arc<ArcSwap<HashMap<String, Arc<CertifiedKey>>>>,
}

impl Certificates {
    /// Replaces all. Names are host names in lower case, or `*.` and a domain for all names one label below it.
    pub fn replace(&self, by_name: HashMap<String, Arc<CertifiedKey>>) {
        self.by_name.store(Arc::new(by_name));
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let by_name = self.by_name.load();
        let name = name.to_ascii_lowercase();
        if let Some(key) = by_name.get(&name) {
            return Some(key.clone());
        }
        let (_, domain) = name.split_once('.')?;
        by_name.get(&format!("*.{domain}")).cloned()
    }

    /// What an acceptor needs: SNI decides the certificate, ALPN the protocol.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()?)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.by_name.load().len())
    }
}
