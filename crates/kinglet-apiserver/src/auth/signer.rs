//! Signs and verifies service-account tokens; tokens that are simply known.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::identity::Identity;

/// Issuer and default audience, as kubeadm clusters have them.
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// A token that is simply known, and whom it stands for.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The secret.
    pub token: String,
    /// Who bears it.
    pub identity: Identity,
}

/// Signs service-account tokens with ECDSA on P-256.
#[derive(Debug)]
pub struct Signer {
    pair: EcdsaKeyPair,
}

/// The key given cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("reading the service-account signing key: {0}")]
pub struct KeyError(String);

impl Signer {
    /// A fresh key, as PKCS#8 in PEM, to be kept for later starts.
    pub fn generate() -> Result<String, KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|error| KeyError(error.to_string()))?;
        let text = STANDARD.encode(document.as_ref());
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|at| &text[at..text.len().min(at + 64)])
            .collect();
        Ok(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        ))
    }

    /// Reads a PKCS#8 P-256 key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let body: String = pem
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = STANDARD
            .decode(body)
            .map_err(|error| KeyError(error.to_string()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|error| KeyError(error.to_string()))?;
        Ok(Self { pair })
    }

    /// A compact JWT over the claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let head = json!({"alg": "ES256", "typ": "JWT"});
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .map_err(|error| KeyError(error.to_string()))?;
        Ok(format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }

    /// The claims of a token that we signed.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        let (text, signature) = token.rsplit_once('.')?;
        let (head, claims) = text.split_once('.')?;
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        if head["alg"] != "ES256" {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?)
            .ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}
