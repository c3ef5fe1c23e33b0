//! Certificates by server name, swapped without touching open connections.
//!
//! They come with the route table, so that one version covers both. Each is parsed when a client first asks for it: ten
//! thousand of them cost neither the start nor memory before they are used. A private key is in no log and no `Debug`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use kinglet_decide::feed::Key;
use kinglet_decide::route::{Certificate, RouteTable, Visibility};
use kinglet_process::tls::ServerCertificate;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};

/// The certificates that https listeners show. Clones share one set.
#[derive(Clone, Default)]
pub(crate) struct Certificates(Arc<ArcSwap<Sets>>);

/// What outsiders see, what callers inside see, and all of them by Secret.
#[derive(Default)]
struct Sets {
    external: ByName,
    local: ByName,
    all: HashMap<Key, Arc<Compiled>>,
}

/// Host names in lower case, or `*.` and a domain for all names one label below it.
type ByName = HashMap<Box<str>, Box<[Arc<Compiled>]>>;

/// A certificate, parsed at its first use.
struct Compiled {
    source: Arc<Certificate>,
    key: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl Compiled {
    fn key(&self) -> Option<&Arc<CertifiedKey>> {
        let read = || ServerCertificate::from_pem(&self.source.chain_pem, &self.source.key_pem);
        self.key
            .get_or_init(|| match read() {
                Ok(read) => Some(read.certified),
                Err(why) => {
                    tracing::warn!(secret = %self.source.secret, "{why}; the certificate is not shown");
                    None
                }
            })
            .as_ref()
    }
}

impl Certificates {
    /// Replaces all by those of a table. What is the same as before is not parsed again.
    pub(crate) fn replace(&self, table: &RouteTable) {
        let before = self.0.load();
        let mut all = HashMap::new();
        let mut set = |visibility| {
            table
                .certificates(visibility)
                .map(|(host, certificates)| {
                    let compiled = certificates
                        .iter()
                        .map(|one| compiled(&mut all, &before.all, one))
                        .collect();
                    (host.into(), compiled)
                })
                .collect::<ByName>()
        };
        let (external, local) = (set(Visibility::External), set(Visibility::ClusterLocal));
        if all.is_empty() && before.all.is_empty() {
            return;
        }
        self.0.store(Arc::new(Sets {
            external,
            local,
            all,
        }));
    }

    /// Whether a request for `host` may come over a connection that was made for `server_name`: it is the same name, or
    /// both are shown the same certificates. What else a client asks for there is misdirected (RFC 9110 7.4): it has not
    /// seen that this gateway speaks for the host.
    pub(crate) fn covers(&self, visibility: Visibility, server_name: &str, host: &str) -> bool {
        let host = kinglet_decide::route::bare_host(host);
        if host.eq_ignore_ascii_case(server_name) {
            return true;
        }
        let sets = self.0.load();
        let by_name = sets.by_name(visibility);
        let shown = find(by_name, server_name).zip(find(by_name, host));
        shown.is_some_and(|(one, other)| {
            let pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
        })
    }

    /// What an acceptor of this visibility needs: SNI decides the certificate, ALPN the protocol.
    pub(crate) fn server_config(
        &self,
        visibility: Visibility,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let resolver = Resolver {
            certificates: self.clone(),
            visibility,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Sets {
    fn by_name(&self, visibility: Visibility) -> &ByName {
        match visibility {
            Visibility::External => &self.external,
            Visibility::ClusterLocal => &self.local,
        }
    }
}

/// One for all hosts that the same Secret is for.
fn compiled(
    all: &mut HashMap<Key, Arc<Compiled>>,
    before: &HashMap<Key, Arc<Compiled>>,
    source: &Arc<Certificate>,
) -> Arc<Compiled> {
    let same = |known: &&Arc<Compiled>| known.source == *source;
    let key = &source.secret;
    let known = all.get(key).filter(same);
    if let Some(known) = known.or_else(|| before.get(key).filter(same)).cloned() {
        all.insert(key.clone(), known.clone());
        return known;
    }
    let made = Arc::new(Compiled {
        source: Arc::clone(source),
        key: OnceLock::new(),
    });
    all.insert(key.clone(), made.clone());
    made
}

fn find<'a>(by_name: &'a ByName, name: &str) -> Option<&'a [Arc<Compiled>]> {
    let name = name.to_ascii_lowercase();
    let found = by_name.get(name.as_str()).or_else(|| {
        let (_, domain) = name.split_once('.')?;
        by_name.get(format!("*.{domain}").as_str())
    });
    found.map(|found| &**found)
}

/// Finds what the clients of one kind of listener are shown.
struct Resolver {
    certificates: Certificates,
    visibility: Visibility,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sets = self.certificates.0.load();
        let offered = find(sets.by_name(self.visibility), hello.server_name()?)?;
        choose(offered, hello.signature_schemes())
    }
}

/// The first certificate whose key the client understands.
fn choose(offered: &[Arc<Compiled>], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let keys = offered.iter().filter_map(|one| one.key());
    keys.into_iter()
        .find(|certified| certified.key.choose_scheme(schemes).is_some())
        .cloned()
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.certificates.0.load().all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_decide::route::{HttpOption, IngressRule};

    fn certificate(
        secret: &str,
        hosts: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::CertificateParams::new(hosts).unwrap();
        Arc::new(Certificate {
            secret: Key::new("ns", secret),
            chain_pem: made.self_signed(&key).unwrap().pem().as_bytes().into(),
            key_pem: key.serialize_pem().as_bytes().into(),
        })
    }

    fn rule(host: &str, certificates: &[&Arc<Certificate>]) -> IngressRule {
        IngressRule {
            ingress: Key::new("ns", host),
            hosts: vec![host.to_owned()],
            visibility: Visibility::External,
            http_option: HttpOption::Enabled,
            probe_hash: String::new(),
            certificates: certificates.iter().map(|one| Arc::clone(one)).collect(),
            paths: Vec::new(),
        }
    }

    fn with(certificates: &Certificates, rules: Vec<IngressRule>) {
        certificates.replace(&RouteTable::build(1, rules));
    }

    #[test]
    fn what_is_the_same_is_not_parsed_again() {
        let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
        let (one, other) = (
            certificate("one", &["a.test"], p256),
            certificate("one", &["a.test"], p256),
        );
        let certificates = Certificates::default();
        let shown = || {
            let sets = certificates.0.load();
            find(&sets.external, "A.test").unwrap()[0].clone()
        };
        with(&certificates, vec![rule("a.test", &[&one])]);
        let first = shown();
        let parsed = first.key().unwrap().clone();
        let same = Arc::new(Certificate::clone(&one));
        with(&certificates, vec![rule("a.test", &[&same])]);
        assert!(Arc::ptr_eq(&parsed, shown().key().unwrap()));
        with(&certificates, vec![rule("a.test", &[&other])]);
        assert!(!Arc::ptr_eq(&parsed, shown().key().unwrap()));
        with(&certificates, Vec::new());
        assert!(
            certificates.0.load().all.is_empty(),
            "nothing is kept that nobody shows"
        );
    }

    #[test]
    fn the_client_gets_a_key_that_it_understands() {
        let ed = certificate("ed", &["a.test"], &rcgen::PKCS_ED25519);
        let ec = certificate("ec", &["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let mut garbage = Certificate::clone(&ec);
        garbage.secret = Key::new("ns", "garbage");
        garbage.chain_pem = b"garbage"[..].into();
        let certificates = Certificates::default();
        with(
            &certificates,
            vec![rule("a.test", &[&Arc::new(garbage), &ed, &ec])],
        );
        let sets = certificates.0.load();
        let offered = find(&sets.external, "a.test").unwrap();
        for (scheme, found) in [
            (SignatureScheme::ED25519, Some(1)),
            (SignatureScheme::ECDSA_NISTP256_SHA256, Some(2)),
            (SignatureScheme::RSA_PSS_SHA256, None),
        ] {
            let chosen = choose(offered, &[scheme]);
            let expected = found.and_then(|at: usize| offered[at].key());
            assert_eq!(chosen.is_some(), expected.is_some(), "{scheme:?}");
            if let Some((chosen, expected)) = chosen.zip(expected) {
                assert!(Arc::ptr_eq(&chosen, expected), "{scheme:?}");
            }
        }
    }

    #[test]
    fn a_connection_is_good_for_the_hosts_that_show_the_same() {
        let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
        let (wild, own) = (
            certificate("wild", &["*.a.test"], p256),
            certificate("own", &["b.test"], p256),
        );
        let certificates = Certificates::default();
        let rules = vec![
            rule("x.a.test", &[&wild]),
            rule("y.a.test", &[&wild]),
            rule("z.a.test", &[&wild, &own]),
            rule("b.test", &[&own]),
            rule("plain.test", &[]),
        ];
        with(&certificates, rules);
        for (server_name, host, covered) in [
            ("x.a.test", "x.a.test", true),
            ("x.a.test", "X.a.test:8443", true),
            ("x.a.test", "y.a.test", true),
            ("x.a.test", "z.a.test", false),
            ("x.a.test", "b.test", false),
            ("x.a.test", "plain.test", false),
            ("x.a.test", "unknown.test", false),
            // A certificate that is gone meanwhile does not end the connection.
            ("gone.test", "gone.test", true),
        ] {
            let said = certificates.covers(Visibility::External, server_name, host);
            assert_eq!(said, covered, "{server_name} {host}");
        }
    }
}
