//! What an https listener shows: a certificate chain with its key, understood or refused in words.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::validity::Validity;

/// Longest `tls.crt`: clients take no more than 64 KiB in a handshake.
pub const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// Longest `tls.key`: an RSA key of 4096 bits has 3.3 kB.
pub const KEY_BYTES_MAX: usize = 16 * 1024;
/// Certificates in a chain; public ones have two or three, and clients look no further than ten.
const CHAIN_MAX: usize = 10;
/// Longest RSA key: a signature takes eight times as long with each doubling, and every handshake costs one.
const RSA_BITS_MAX: usize = 4096;

/// A certificate chain with its key, ready for a listener.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// As listeners take it. Its `Debug` shows no key.
    pub certified: Arc<CertifiedKey>,
    /// When it holds.
    pub validity: Validity,
}

impl ServerCertificate {
    /// Understands `tls.crt` and `tls.key` of a Secret, or says what is wrong with them.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, String> {
        let chain = chain(chain_pem).map_err(|why| format!("tls.crt: {why}"))?;
        let unreadable = || "tls.crt: the first certificate cannot be read".to_owned();
        let validity = Validity::of(&chain[0]).ok_or_else(unreadable)?;
        let key = private_key(key_pem).map_err(|why| format!("tls.key: {why}"))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                "tls.key: it is not the key of the first certificate in tls.crt".to_owned()
            }
            _ => format!("tls.crt: the first certificate cannot be read: {error}"),
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            validity,
        })
    }

    /// Says in words that it does not hold now.
    pub fn valid_at(&self, now: Timestamp) -> Result<(), String> {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        if now > not_after {
            return Err(format!(
                "tls.crt: the certificate has expired at {not_after}"
            ));
        }
        if now < not_before {
            return Err(format!(
                "tls.crt: the certificate holds from {not_before} on only"
            ));
        }
        Ok(())
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.len() > CHAIN_BYTES_MAX {
        return Err(format!("it is longer than {} kB", CHAIN_BYTES_MAX / 1024));
    }
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is no PEM file: {error}"))?;
        let number = chain.len() + 1;
        if number > CHAIN_MAX {
            return Err(format!("it holds more than {CHAIN_MAX} certificates"));
        }
        ParsedCertificate::try_from(&certificate).map_err(|error| {
            format!("certificate number {number} in it cannot be read: {error}")
        })?;
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err("it holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(chain)
}

fn private_key(pem: &[u8]) -> Result<Arc<dyn rustls::sign::SigningKey>, String> {
    if pem.len() > KEY_BYTES_MAX {
        return Err(format!("it is longer than {} kB", KEY_BYTES_MAX / 1024));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        "it holds no private key without a password (-----BEGIN PRIVATE KEY-----)".to_owned()
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let other = || {
        "the key is of a kind that is not served; RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, and Ed25519 are"
            .to_owned()
    };
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| other())?;
    is_served(&*key).then_some(key).ok_or_else(other)
}

fn is_served(key: &dyn rustls::sign::SigningKey) -> bool {
    use SignatureScheme as Scheme;
    let signs = |schemes: &[Scheme]| key.choose_scheme(schemes);
    match key.algorithm() {
        SignatureAlgorithm::ED25519 => true,
        SignatureAlgorithm::ECDSA => {
            signs(&[Scheme::ECDSA_NISTP256_SHA256, Scheme::ECDSA_NISTP384_SHA384]).is_some()
        }
        // A signature is as long as the key.
        SignatureAlgorithm::RSA => signs(&[Scheme::RSA_PKCS1_SHA256])
            .and_then(|signer| signer.sign(b"").ok())
            .is_some_and(|signature| signature.len() * 8 <= RSA_BITS_MAX),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
