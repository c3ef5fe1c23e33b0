//! A certificate with its private key, on its way from a Secret to an https listener.

use std::fmt;
use std::sync::Arc;

use crate::feed::Key;

/// A certificate chain and its private key, as a Secret of type `kubernetes.io/tls` holds them.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret.
    pub secret: Key,
    /// `tls.crt`.
    pub chain_pem: Arc<[u8]>,
    /// `tls.key`.
    pub key_pem: Arc<[u8]>,
}

// A private key is never written anywhere, also not by mistake.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.secret)
    }
}
