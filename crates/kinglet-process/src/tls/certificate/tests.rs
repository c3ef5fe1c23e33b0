//! Every kind of key that is served, and a sentence for everything else.

use rcgen::{CertificateParams, KeyPair, RsaKeySize};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A self-signed certificate of this key, in PEM, good for the year 2026.
fn signed(key: &KeyPair) -> String {
    let mut parameters = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
    parameters.self_signed(key).expect("signed").pem()
}

fn refused(chain: &str, key: &str) -> String {
    ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("refused")
}

#[test]
fn the_usual_keys_are_served() {
    let keys = [
        (
            "P-256",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        ),
        (
            "P-384",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        ),
        ("Ed25519", KeyPair::generate_for(&rcgen::PKCS_ED25519)),
        (
            "RSA",
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        ),
    ];
    for (kind, key) in keys {
        let key = key.expect(kind);
        let chain = signed(&key);
        let read = ServerCertificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes())
            .expect(kind);
        read.valid_at(at("2026-06-01T00:00:00Z")).expect("now");
        for (when, words) in [
            (
                "2027-06-01T00:00:00Z",
                "has expired at 2027-01-01T00:00:00Z",
            ),
            (
                "2025-06-01T00:00:00Z",
                "holds from 2026-01-01T00:00:00Z on only",
            ),
        ] {
            let error = read.valid_at(at(when)).expect_err(when);
            assert!(error.contains(words), "{error}");
        }
        let debug = format!("{read:?}");
        assert!(!debug.to_lowercase().contains("private"), "{debug}");
    }
}

#[test]
fn other_keys_are_refused_in_words() {
    let chain = signed(&KeyPair::generate().expect("key"));
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("P-521");
    for (kind, key) in [
        ("RSA of 4608 bits", include_str!("rsa4608.pem")),
        ("secp256k1", include_str!("secp256k1.pem")),
        ("P-521", &p521.serialize_pem()),
    ] {
        let error = refused(&chain, key);
        assert!(
            error.starts_with("tls.key: ") && error.contains("Ed25519"),
            "{kind}: {error}"
        );
    }
}

#[test]
fn what_is_wrong_is_said() {
    let (key, other) = (
        KeyPair::generate().expect("key"),
        KeyPair::generate().expect("key"),
    );
    let (chain, pem) = (signed(&key), key.serialize_pem());
    let garbage = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    for (chain, key, words) in [
        ("", pem.as_str(), "tls.crt: it holds no certificate"),
        ("garbage", &pem, "tls.crt: it holds no certificate"),
        (garbage, &pem, "tls.crt: certificate number 1"),
        (
            &format!("{chain}{garbage}"),
            &pem,
            "tls.crt: certificate number 2",
        ),
        (&chain.repeat(11), &pem, "more than 10 certificates"),
        (&"x".repeat(CHAIN_BYTES_MAX + 1), &pem, "longer than 64 kB"),
        (&chain, "", "tls.key: it holds no private key"),
        (&chain, &chain, "tls.key: it holds no private key"),
        (&chain, &"x".repeat(KEY_BYTES_MAX + 1), "longer than 16 kB"),
        (
            &chain,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "without a password",
        ),
        (
            &chain,
            "-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n",
            "tls.key: the key is of a kind",
        ),
        (
            &chain,
            &other.serialize_pem(),
            "tls.key: it is not the key of the first certificate",
        ),
    ] {
        let error = refused(chain, key);
        assert!(error.contains(words), "{words}: {error}");
        assert!(!error.contains("PRIVATE KEY-----\n"), "{error}");
    }
}
