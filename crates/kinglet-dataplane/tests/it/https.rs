//! The https listener: certificates by name, hosts that do not fit them, and clients that do not speak TLS or not in time.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper_util::rt::TokioIo;
use kinglet_dataplane::{Listener, Options};
use kinglet_decide::feed::Key;
use kinglet_decide::route::{Certificate, IngressRule, Visibility};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::*;

/// A self-signed certificate, as a Secret holds it.
pub(crate) fn certificate(secret: &str, hosts: &[&str]) -> Arc<Certificate> {
    let key = rcgen::KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::CertificateParams::new(hosts).unwrap();
    Arc::new(Certificate {
        secret: Key::new("ns", secret),
        chain_pem: made.self_signed(&key).unwrap().pem().as_bytes().into(),
        key_pem: key.serialize_pem().as_bytes().into(),
    })
}

pub(crate) fn shown(host: &str, certificate: &Arc<Certificate>) -> IngressRule {
    let mut rule = rule(host, vec![to(&[(100, "one")])]);
    rule.certificates = vec![certificate.clone()];
    rule
}

/// Connects for `name`, as a client that trusts this certificate alone.
async fn secure(
    at: std::net::SocketAddr,
    name: &str,
    trusted: &Certificate,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&trusted.chain_pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(at).await.unwrap();
    let name = name.to_owned().try_into().unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = within(stream.read(&mut buffer)).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(read > 0, "{text}");
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if read == 0 || length.is_none_or(|length| body.len() >= length.parse().unwrap()) {
            return text;
        }
    }
}

/// A world with an https listener of this kind.
async fn with_https(options: Options, kind: Listener) -> (World, std::net::SocketAddr) {
    let mut world = World::with(options).await;
    world.one(backend("one", &[mirror().await])).await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    world.handle.serve_tls(listener, kind).unwrap();
    (world, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn https_shows_the_certificate_of_the_name_asked_for() {
    let (mut world, address) = with_https(Options::default(), Listener::External).await;
    let one = certificate("one", &["one.test"]);
    world.route(vec![shown("one.test", &one)]).await;
    for (offered, agreed) in [
        (&["h2"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("h2")),
        (&[], None),
    ] {
        let stream = secure(address, "one.test", &one, offered).await.unwrap();
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn, agreed.map(|name| name.as_bytes().to_vec()));
        let got = if agreed == Some("h2") {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(
                hyper_util::rt::TokioExecutor::new(),
                TokioIo::new(stream),
            )
            .await
            .unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://one.test/").body(empty()).unwrap();
            let got = collect(sender.send_request(request).await.unwrap()).await;
            format!("{} {}", got.status, got.body)
        } else {
            let mut stream = stream;
            ask(&mut stream, "one.test").await
        };
        assert!(
            got.contains("200 OK") && got.contains("x-forwarded-proto: https"),
            "{offered:?}: {got}"
        );
    }
    assert!(secure(address, "two.test", &one, &[]).await.is_err());
    // TLS 1.2 clients, too, and none without a name.
    assert!(secure(address, "127.0.0.1", &one, &[]).await.is_err());
    // Plain HTTP is as it was, h2c included.
    assert_eq!(get(world.external, "one.test", "/").await.status, 200);
    let request = Request::get("http://one.test/").body(empty()).unwrap();
    let got = h2(world.external)
        .await
        .send_request(request)
        .await
        .unwrap();
    assert!(collect(got).await.body.contains("x-forwarded-proto: http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_brings_its_certificates_and_open_connections_go_on() {
    let (mut world, address) = with_https(Options::default(), Listener::External).await;
    let (first, second) = (
        certificate("one", &["one.test"]),
        certificate("one", &["one.test"]),
    );
    world.route(vec![shown("one.test", &first)]).await;
    let mut open = secure(address, "one.test", &first, &[]).await.unwrap();
    assert!(ask(&mut open, "one.test").await.starts_with("HTTP/1.1 200"));
    // In force means shown.
    world.route(vec![shown("one.test", &second)]).await;
    secure(address, "one.test", &second, &[]).await.unwrap();
    assert!(secure(address, "one.test", &first, &[]).await.is_err());
    assert!(ask(&mut open, "one.test").await.starts_with("HTTP/1.1 200"));
    world
        .route(vec![rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    assert!(secure(address, "one.test", &second, &[]).await.is_err());
    assert!(ask(&mut open, "one.test").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_hosts_have_certificates_inside_alone() {
    let (mut world, outside) = with_https(Options::default(), Listener::External).await;
    let listener = listen().await;
    let inside = listener.local_addr().unwrap();
    world
        .handle
        .serve_tls(listener, Listener::ClusterLocal)
        .unwrap();
    let private = certificate("private", &["one.ns.svc.cluster.local"]);
    let mut rule = shown("one.ns.svc.cluster.local", &private);
    rule.visibility = Visibility::ClusterLocal;
    world.route(vec![rule]).await;
    let name = "one.ns.svc.cluster.local";
    assert!(secure(outside, name, &private, &[]).await.is_err());
    let mut stream = secure(inside, name, &private, &[]).await.unwrap();
    assert!(ask(&mut stream, name).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_the_connection_is_not_for_is_misdirected() {
    let (mut world, address) = with_https(Options::default(), Listener::External).await;
    let (both, other) = (
        certificate("both", &["one.test", "two.test"]),
        certificate("other", &["three.test"]),
    );
    world
        .route(vec![
            shown("one.test", &both),
            shown("two.test", &both),
            shown("three.test", &other),
            rule("plain.test", vec![to(&[(100, "one")])]),
        ])
        .await;
    let mut stream = secure(address, "one.test", &both, &[]).await.unwrap();
    for (host, status) in [
        ("one.test", 200),
        ("one.test:8443", 200),
        ("two.test", 200),
        ("three.test", 421),
        ("plain.test", 421),
        ("unknown.test", 421),
        ("one.test", 200),
    ] {
        let answer = ask(&mut stream, host).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_tls_is_told_and_tls_on_the_plain_port_ends() {
    let (mut world, address) = with_https(Options::default(), Listener::External).await;
    let one = certificate("one", &["one.test"]);
    world.route(vec![shown("one.test", &one)]).await;
    let answer = raw(address, "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("https://"),
        "{answer}"
    );
    for garbage in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16GET / HTTP/1.1\r\n\r\n",
        b"ssh-2.0",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    assert!(secure(world.external, "one.test", &one, &[]).await.is_err());
    assert_eq!(get(world.external, "one.test", "/").await.status, 200);
    secure(address, "one.test", &one, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_are_bounded_in_number_and_time() {
    let options = Options {
        handshakes_max: 8,
        handshakes_loopback_max: 4,
        handshake_timeout: Duration::from_millis(500),
        ..Options::default()
    };
    let (mut world, address) = with_https(options, Listener::External).await;
    let one = certificate("one", &["one.test"]);
    world.route(vec![shown("one.test", &one)]).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A record that never becomes whole.
        stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
        slow.push(stream);
    }
    // All end, those beyond the bound and those out of time; nothing is said to them.
    for stream in &mut slow {
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    let mut stream = secure(address, "one.test", &one, &[]).await.unwrap();
    assert!(
        ask(&mut stream, "one.test")
            .await
            .starts_with("HTTP/1.1 200")
    );
    // What is shaken takes no part of the bound.
    let mut open = vec![stream];
    for _ in 0..12 {
        open.push(secure(address, "one.test", &one, &[]).await.unwrap());
    }
    for stream in &mut open {
        assert!(ask(stream, "one.test").await.starts_with("HTTP/1.1 200"));
    }
}
