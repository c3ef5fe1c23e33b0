//! Three authorities that cannot stand in for each other, old data directories, renewal.

use std::time::Duration;

use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::clock::Clock;
use crate::tls::{ServerCertificate, authorities, fixed, server_config};

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("time")
}

fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()))
}

fn first(pem: &str) -> CertificateDer<'static> {
    authorities(pem.as_bytes()).expect("certificate").remove(0)
}

/// What a client that trusts `authority` says to `leaf`.
fn believes(authority: &str, leaf: &str, host: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(first(authority)).expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("verifier");
    let name = ServerName::try_from(host.to_owned()).expect("name");
    verifier
        .verify_server_cert(&first(leaf), &[], &name, &[], unix(now))
        .is_ok()
}

/// What the API server says to `leaf`.
fn admits(pki: &Pki, leaf: &str) -> bool {
    let verifier = pki.client_verifier().expect("verifier");
    verifier
        .verify_client_cert(&first(leaf), &[], unix(start()))
        .is_ok()
}

fn localhost() -> Names {
    Names {
        hosts: vec!["localhost".to_owned()],
        addresses: Vec::new(),
    }
}

#[test]
fn opened_twice_keeps_authorities_and_credentials() {
    let folder = tempfile::tempdir().expect("folder");
    let first = Pki::open(folder.path(), start()).expect("first");
    let second = Pki::open(folder.path(), start()).expect("second");
    assert_eq!(first.ca_pem, second.ca_pem);
    assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
    assert!(
        !folder.path().join("browser-ca.crt").exists(),
        "nobody has asked"
    );
    for entry in std::fs::read_dir(folder.path()).expect("entries") {
        let meta = entry.expect("entry").metadata().expect("meta");
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
        assert_eq!(mode & 0o077, 0);
    }
    assert_eq!(
        format!("{first:?} {:?}", first.admin),
        "Pki(…) Credential(…)"
    );
}

#[test]
fn no_authority_stands_in_for_another() {
    let folder = tempfile::tempdir().expect("folder");
    let pki = Pki::open(folder.path(), start()).expect("pki");
    let domains = ["example.com".to_owned()];
    let hosts = ["x.example.com".to_owned()];
    let (browser, browser_ca) = pki
        .browsers
        .issue(&hosts, &domains, start())
        .expect("browser");
    let key = KeyPair::generate().expect("key");
    // The worst that the holder of each key could make.
    let made = |authority: &Authority, purpose| {
        let who = subject("kinglet-admin", Some("system:masters"));
        authority
            .sign(&key, purpose, who, &localhost(), start())
            .expect("signed")
    };
    let (by_clients, by_internal) = (
        [Purpose::Client, Purpose::Server].map(|purpose| made(&pki.clients, purpose)),
        [Purpose::Client, Purpose::Server].map(|purpose| made(&pki.internal, purpose)),
    );
    assert!(admits(&pki, &pki.admin.certificate_pem) && admits(&pki, &by_clients[0]));
    for leaf in by_internal
        .iter()
        .chain([&by_clients[1], &browser.certificate_pem])
    {
        assert!(!admits(&pki, leaf), "a client that is none");
    }
    assert!(believes(&pki.ca_pem, &by_internal[1], "localhost", start()));
    for leaf in by_clients.iter().chain([&by_internal[0]]) {
        assert!(!believes(&pki.ca_pem, leaf, "localhost", start()));
    }
    assert!(!believes(
        &pki.ca_pem,
        &browser.certificate_pem,
        "x.example.com",
        start()
    ));
    assert!(believes(
        &browser_ca,
        &browser.certificate_pem,
        "x.example.com",
        start()
    ));
    assert!(!believes(
        &browser_ca,
        &by_internal[1],
        "localhost",
        start()
    ));
}

#[test]
fn the_authority_for_browsers_is_held_to_its_domains() {
    let folder = tempfile::tempdir().expect("folder");
    let pki = Pki::open(folder.path(), start()).expect("pki");
    let domains = ["example.com".to_owned(), "app.localhost".to_owned()];
    for host in [
        "a.b.example.com",
        "example.com",
        "a.default.localhost",
        "*.b.example.com",
    ] {
        let (made, ca) = pki
            .browsers
            .issue(&[host.to_owned()], &domains, start())
            .expect(host);
        let asked = host.replace('*', "x");
        assert!(
            believes(&ca, &made.certificate_pem, &asked, start()),
            "{host}"
        );
    }
    for host in ["example.org", "badexample.com", "google.com", "com"] {
        let error = pki
            .browsers
            .issue(
                &["ok.example.com".to_owned(), host.to_owned()],
                &domains,
                start(),
            )
            .expect_err(host)
            .to_string();
        assert!(
            error.contains(host) && error.contains("browser-ca.crt"),
            "{error}"
        );
    }
    // Not even with its key: the constraints are in the authority, and they are critical.
    let authority = Authority::open(folder.path(), "browser-ca", "x", &[], start()).expect("there");
    let thief = Authority::open(
        folder.path(),
        "browser-ca",
        "Kinglet, hosts of this machine",
        &[],
        start(),
    );
    for (hosts, addresses, asked) in [
        (vec!["google.com".to_owned()], vec![], "google.com"),
        (vec![], vec!["192.0.2.1".parse().expect("ip")], "192.0.2.1"),
    ] {
        let names = Names { hosts, addresses };
        let leaf = thief
            .as_ref()
            .expect("key")
            .server(&names, start())
            .expect("signed");
        assert!(
            !believes(
                &authority.certificate_pem,
                &leaf.certificate_pem,
                asked,
                start()
            ),
            "{asked}"
        );
    }
    let der = first(&authority.certificate_pem);
    // id-ce-nameConstraints, then BOOLEAN TRUE.
    let critical = [0x06, 0x03, 0x55, 0x1d, 0x1e, 0x01, 0x01, 0xff];
    assert!(der.windows(critical.len()).any(|part| part == critical));
}

/// A data directory as it was when one authority signed everything.
fn old_directory(folder: &Path) -> (String, String) {
    let one = Authority::open(folder, "ca", "kinglet-ca", &[], start()).expect("authority");
    let key = file::key(&folder.join("admin.key")).expect("key");
    let who = subject("kinglet-admin", Some("system:masters"));
    let admin = one
        .sign(&key, Purpose::Client, who, &Names::default(), start())
        .expect("signed");
    private::write(&folder.join("admin.crt"), &admin).expect("written");
    (one.certificate_pem, admin)
}

#[test]
fn kubeconfigs_of_old_directories_go_on() {
    let folder = tempfile::tempdir().expect("folder");
    let (ca, old_admin) = old_directory(folder.path());
    for life in ["first", "second"] {
        let pki = Pki::open(folder.path(), start()).expect(life);
        assert_eq!(pki.ca_pem, ca, "{life}: clients trust the same authority");
        assert!(admits(&pki, &old_admin), "{life}: the old kubeconfig");
        assert_ne!(pki.admin.certificate_pem, old_admin);
        assert!(
            admits(&pki, &pki.admin.certificate_pem),
            "{life}: the new one"
        );
        let hints = pki
            .client_verifier()
            .expect("verifier")
            .root_hint_subjects()
            .len();
        assert_eq!(hints, 2, "clients choose a certificate by them");
        let key = KeyPair::generate().expect("key");
        let who = subject("kinglet-admin", Some("system:masters"));
        let forged = pki
            .internal
            .sign(&key, Purpose::Client, who, &Names::default(), start());
        assert!(
            !admits(&pki, &forged.expect("signed")),
            "{life}: the one certificate alone"
        );
    }
}

#[test]
fn the_administrators_certificate_is_renewed_in_time() {
    let folder = tempfile::tempdir().expect("folder");
    let first = Pki::open(folder.path(), start()).expect("first");
    let day = jiff::SignedDuration::from_hours(24);
    let later = start() + day * (365 * 7);
    let second = Pki::open(folder.path(), later).expect("second");
    assert_ne!(first.admin.certificate_pem, second.admin.certificate_pem);
    assert_eq!(first.admin.key_pem, second.admin.key_pem);
    assert!(
        admits(&second, &first.admin.certificate_pem),
        "the old one goes on"
    );
    assert!(!folder.path().join("admin-legacy.crt").exists());
}

/// Connects with TLS as an API client does, and answers the certificate that was shown.
async fn handshake(
    config: Arc<rustls::ServerConfig>,
) -> (
    tokio_rustls::server::TlsStream<tokio::io::DuplexStream>,
    tokio_rustls::client::TlsStream<tokio::io::DuplexStream>,
) {
    let client = crate::unverified::client_config().expect("TLS");
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").expect("name");
    let (server, client) = tokio::join!(
        tokio_rustls::TlsAcceptor::from(config).accept(near),
        tokio_rustls::TlsConnector::from(client).connect(name, far)
    );
    (server.expect("server"), client.expect("client"))
}

#[tokio::test(start_paused = true)]
async fn a_listener_shows_a_new_certificate_after_two_thirds_and_no_connection_notices() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().expect("folder");
    let clock = Clock::simulated(start());
    let pki = Pki::open(folder.path(), clock.now()).expect("pki");
    let credential = ServerCredential::issue(&pki, localhost(), clock.clone()).expect("issued");
    let config = server_config(&pki, Arc::new(credential.clone())).expect("TLS");
    let tasks = crate::Tasks::new();
    let renewed = credential.clone();
    tasks.restarted("certificates", move || renewed.clone().keep_fresh());
    let shown = |client: &tokio_rustls::client::TlsStream<_>| {
        client.get_ref().1.peer_certificates().expect("shown")[0].clone()
    };
    let (mut server, mut client) = handshake(config.clone()).await;
    let before = shown(&client);
    tokio::time::sleep(Duration::from_secs(58 * 86_400)).await;
    assert_eq!(
        shown(&handshake(config.clone()).await.1),
        before,
        "not before its time"
    );
    tokio::time::sleep(Duration::from_secs(3 * 86_400)).await;
    let after = shown(&handshake(config.clone()).await.1);
    assert_ne!(after, before);
    let validity = crate::tls::Validity::of(&after).expect("validity");
    assert!(validity.not_after > clock.now() + jiff::SignedDuration::from_hours(24 * 85));
    client.write_all(b"still here").await.expect("sent");
    client.flush().await.expect("sent");
    let mut text = [0; 10];
    server.read_exact(&mut text).await.expect("received");
    assert_eq!(&text, b"still here");
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[test]
fn a_fixed_certificate_is_one_that_can_be_shown() {
    let folder = tempfile::tempdir().expect("folder");
    let pki = Pki::open(folder.path(), start()).expect("pki");
    let issued = pki.issue(&localhost(), start()).expect("issued");
    fixed(&issued).expect("good");
    let read =
        ServerCertificate::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())
            .expect("good");
    let life = read.validity.not_after.duration_since(start());
    assert_eq!(life.as_hours(), 24 * 90);
}
