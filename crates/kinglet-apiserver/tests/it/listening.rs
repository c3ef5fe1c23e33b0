//! The listener: TLS, tokens, rights.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kinglet_apiserver::{Identity, Options, Signer, StaticToken};
use kinglet_process::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::test_server::{MAPS, TestServer, config_map, read};

fn options() -> Options {
    Options {
        tokens: vec![StaticToken {
            token: "secret".to_owned(),
            identity: Identity::remote("admin", vec!["system:masters".to_owned()]),
        }],
        signer: Some(Arc::new(
            Signer::from_pem(&Signer::generate().unwrap()).unwrap(),
        )),
        ..Options::default()
    }
}

#[tokio::test]
async fn an_account_may_do_what_its_roles_allow() {
    let server = TestServer::with(options()).await;
    let account = Identity {
        groups: vec![
            "system:serviceaccounts".to_owned(),
            "system:authenticated".to_owned(),
        ],
        ..Identity::remote("system:serviceaccount:default:default", Vec::new())
    };
    let ask = async |path: &str| {
        read(
            server
                .raw(&account, Method::GET, path, &[], Vec::new())
                .await,
        )
        .await
    };
    let refused = ask(MAPS).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(ask("/apis").await.code, 200);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    server.post(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]})).await;
    let bound = server
        .post(&format!("{rbac}/rolebindings"), json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]}))
        .await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    assert_eq!(ask(MAPS).await.code, 200);
    assert_eq!(ask(&format!("{MAPS}/a")).await.code, 403);
    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let asked = read(
        server
            .raw(
                &account,
                Method::POST,
                path,
                &[("content-type", "application/json")],
                review.to_string().into_bytes(),
            )
            .await,
    )
    .await;
    assert_eq!(
        (asked.code, &asked.body["status"]["allowed"]),
        (201, &json!(true)),
        "{}",
        asked.text
    );
}

#[tokio::test]
async fn tokens_are_issued_and_reviewed() {
    let server = TestServer::with(options()).await;
    let issued = server
        .post(
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            json!({"spec": {"expirationSeconds": 3600}}),
        )
        .await;
    assert_eq!(issued.code, 201, "{}", issued.text);
    let token = issued.body["status"]["token"].as_str().unwrap();
    let review = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"spec": {"token": token}}),
        )
        .await;
    assert_eq!(
        review.body["status"]["user"]["username"], "system:serviceaccount:default:default",
        "{}",
        review.text
    );
    let other = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"spec": {"token": token, "audiences": ["vault"]}}),
        )
        .await;
    assert!(
        other.body["status"].get("authenticated").is_none(),
        "a token is for its audiences only: {}",
        other.text
    );
    let (start, end) = token.split_at(token.len() - 2);
    // Another letter than the one that is there.
    let forged = format!(
        "{start}{}{}",
        if end.starts_with('x') { 'y' } else { 'x' },
        &end[1..]
    );
    let review = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"spec": {"token": forged}}),
        )
        .await;
    assert!(review.body["status"].get("authenticated").is_none());
    server
        .delete("/api/v1/namespaces/default/serviceaccounts/default")
        .await;
    let review = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"spec": {"token": token}}),
        )
        .await;
    assert!(
        review.body["status"].get("authenticated").is_none(),
        "a token dies with its account"
    );
    assert_eq!(
        server
            .post(
                "/api/v1/namespaces/default/serviceaccounts/default/token",
                json!({"spec": {"expirationSeconds": 5}})
            )
            .await
            .code,
        404
    );
}

#[tokio::test]
async fn the_listener_knows_whom_it_serves() {
    let server = TestServer::with(options()).await;
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(params, authority);
    let issue = |params: rcgen::CertificateParams| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (
            certificate.der().clone(),
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    };
    let mut person = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    person.distinguished_name = rcgen::DistinguishedName::new();
    person
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:masters");
    person
        .distinguished_name
        .push(rcgen::DnType::CommonName, "ada");
    let (person_certificate, person_key) = issue(person);
    let (server_certificate, server_key) =
        issue(rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&roots),
        Arc::clone(&provider),
    )
    .allow_unauthenticated()
    .build()
    .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server_certificate], server_key)
        .unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn(
        "listener",
        kinglet_apiserver::listen::serve(server.api.clone(), socket, Arc::new(tls), tasks.child()),
    );
    server.post(MAPS, config_map("a")).await;

    let client = |identity: Option<(
        rustls::pki_types::CertificateDer<'static>,
        rustls::pki_types::PrivateKeyDer<'static>,
    )>| {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&roots));
        Arc::new(match identity {
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => builder.with_no_client_auth(),
        })
    };
    let ask = async |config: Arc<rustls::ClientConfig>,
                     path: &str,
                     token: Option<&str>,
                     acts_as: &[u8]|
           -> (u16, Value) {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, "localhost");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !acts_as.is_empty() {
            let name = http::HeaderValue::from_bytes(acts_as).unwrap();
            request = request.header("impersonate-user", name);
        }
        let response = sender
            .send_request(request.body(Full::new(bytes::Bytes::new())).unwrap())
            .await
            .unwrap();
        let code = response.status().as_u16();
        (
            code,
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes())
                .unwrap_or_default(),
        )
    };
    let nobody = client(None);
    assert_eq!(ask(Arc::clone(&nobody), "/readyz", None, b"").await.0, 200);
    let (code, body) = ask(Arc::clone(&nobody), MAPS, None, b"").await;
    assert_eq!((code, &body["message"]), (401, &json!("Unauthorized")));
    let cases: [(&str, &[u8], u16); 4] = [
        ("wrong", b"", 401),
        ("secret", b"", 200),
        // Whoever acts for others loses his own rights, also for a name that is not ASCII, and for one that is no text.
        ("secret", "j\u{f6}rg".as_bytes(), 403),
        ("secret", b"j\xf6rg", 400),
    ];
    for (token, acts_as, expected) in cases {
        let (code, body) = ask(Arc::clone(&nobody), MAPS, Some(token), acts_as).await;
        assert_eq!(code, expected, "{acts_as:?}: {body}");
    }
    // Who says nothing after the handshake does not stay.
    let beginnings: [&[u8]; 2] = [b"", b"PRI * HT"];
    for said in beginnings {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut silent = tokio_rustls::TlsConnector::from(Arc::clone(&nobody))
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        silent.write_all(said).await.unwrap();
        silent.flush().await.unwrap();
        // One turn for the server to begin to wait.
        assert_eq!(ask(Arc::clone(&nobody), "/readyz", None, b"").await.0, 200);
        tokio::time::pause();
        let mut answer = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(120), silent.read_to_end(&mut answer)).await;
        tokio::time::resume();
        assert!(ended.is_ok(), "{said:?} is still open after two minutes");
    }
    let (code, body) = ask(
        client(Some((person_certificate, person_key))),
        MAPS,
        None,
        b"",
    )
    .await;
    assert_eq!(
        (code, body["items"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    assert!(
        tasks.shutdown(Duration::from_secs(10)).await,
        "the listener stops"
    );
}
