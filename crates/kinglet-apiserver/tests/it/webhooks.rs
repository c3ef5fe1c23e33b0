//! Conversion webhooks of users: a real TLS server answers, lies, hangs or is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kinglet_apiserver::Options;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::test_server::TestServer;
use crate::versions::{DEFINITION, DEFINITIONS, bird, birds, convert, definition, watched};

/// What the webhook does with a review.
type Answer = Arc<dyn Fn(Value) -> Option<(u16, Value)> + Send + Sync>;

struct Hook {
    answer: Arc<Mutex<Answer>>,
    calls: Arc<AtomicUsize>,
    ca_bundle: String,
}

/// Converts as it should.
#[expect(
    clippy::needless_pass_by_value,
    reason = "as every other answer is made"
)]
fn rightly(review: Value) -> Option<(u16, Value)> {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let to = to.rsplit('/').next().unwrap();
    let objects: Vec<Value> = request["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| convert(object, to).unwrap())
        .collect();
    Some((
        200,
        json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"],
            "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}}),
    ))
}

impl Hook {
    /// Starts the webhook and a server whose network is only this webhook. The Service `hook` is where it is.
    async fn start(names: &[&str]) -> (Self, TestServer) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let hook = Self {
            answer: Arc::new(Mutex::new(Arc::new(rightly))),
            calls: Arc::default(),
            ca_bundle: base64::engine::general_purpose::STANDARD.encode(certificate.pem()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(
            listener,
            tokio_rustls::TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&hook.answer),
            Arc::clone(&hook.calls),
        ));
        let server = TestServer::with(Options::default()).await;
        server.api.reach_webhooks_by(Arc::new(move |host, port| {
            Box::pin(async move {
                assert_eq!((host.as_str(), port), ("10.96.0.7", 443));
                TcpStream::connect(address)
                    .await
                    .map_err(|error| error.to_string())
            })
        }));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 443}]}});
        let made = server
            .post("/api/v1/namespaces/default/services", service)
            .await;
        assert_eq!(made.code, 201, "{}", made.text);
        (hook, server)
    }

    async fn define(&self, server: &TestServer) {
        let mut definition = definition();
        definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v9", "v1"],
            "clientConfig": {"caBundle": self.ca_bundle, "service": {"namespace": "default", "name": "hook", "path": "/convert"}}}});
        let made = server.post(DEFINITIONS, definition).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }

    fn answers(&self, answer: impl Fn(Value) -> Option<(u16, Value)> + Send + Sync + 'static) {
        *self.answer.lock() = Arc::new(answer);
    }
}

async fn serve(
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    answer: Arc<Mutex<Answer>>,
    calls: Arc<AtomicUsize>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, answer, calls) = (tls.clone(), Arc::clone(&answer), Arc::clone(&calls));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let respond = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
                let (answer, calls) = (Arc::clone(&answer), Arc::clone(&calls));
                async move {
                    assert_eq!(request.uri(), "/convert?timeout=30s");
                    let body = request.into_body().collect().await?.to_bytes();
                    calls.fetch_add(1, Ordering::SeqCst);
                    let answer = Arc::clone(&*answer.lock());
                    match answer(serde_json::from_slice(&body).unwrap()) {
                        Some((code, value)) => Ok::<_, hyper::Error>(
                            Response::builder()
                                .status(code)
                                .body(Full::new(bytes::Bytes::from(value.to_string())))
                                .unwrap(),
                        ),
                        None => std::future::pending().await,
                    }
                }
            });
            // A client that hangs up is no fault of the webhook.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), respond)
                .await;
        });
    }
}

#[tokio::test]
async fn a_webhook_converts_what_is_written_read_listed_watched_and_applied() {
    let (hook, server) = Hook::start(&["hook.default.svc"]).await;
    hook.define(&server).await;
    for name in ["wren", "robin", "tit"] {
        let made = server
            .post(&birds("v1"), bird("v1", name, json!({"song": "la"})))
            .await;
        assert_eq!(
            (made.code, &made.body["spec"]),
            (201, &json!({"song": "la"})),
            "{}",
            made.text
        );
    }
    let stored = server.api.store().get("example.com/birds/default/wren");
    let stored: Value = serde_json::from_slice(&stored.unwrap().value).unwrap();
    assert_eq!(
        (&stored["apiVersion"], &stored["spec"]),
        (&json!("example.com/v2"), &json!({"tune": "la"}))
    );
    let before = hook.calls.load(Ordering::SeqCst);
    let stored_version = server.get(&birds("v2")).await;
    assert_eq!(
        stored_version.body["items"][2]["spec"],
        json!({"tune": "la"})
    );
    assert_eq!(
        hook.calls.load(Ordering::SeqCst),
        before,
        "no call is needed"
    );
    let list = server.get(&birds("v1")).await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 3);
    assert_eq!(list.body["items"][2]["spec"], json!({"song": "la"}));
    assert_eq!(
        hook.calls.load(Ordering::SeqCst),
        before + 1,
        "a list is one call"
    );
    let seen = watched(&server, &format!("{}?watch=1", birds("v1")), 3).await;
    assert!(
        seen.iter()
            .all(|(_, object)| object["spec"]["song"] == "la")
    );
    let applied = server
        .patch(
            &format!("{}/wren?fieldManager=one&force=true", birds("v1")),
            "apply-patch+yaml",
            bird("v1", "wren", json!({"song": "lu"})),
        )
        .await;
    assert_eq!(
        applied.body["spec"],
        json!({"song": "lu"}),
        "{}",
        applied.text
    );
    let clash = server
        .patch(
            &format!("{}/wren?fieldManager=two", birds("v2")),
            "apply-patch+yaml",
            bird("v2", "wren", json!({"tune": "lo"})),
        )
        .await;
    assert_eq!(clash.code, 409, "{}", clash.text);
    assert!(clash.text.contains(".spec.song"), "{}", clash.text);
}

#[tokio::test]
async fn a_webhook_that_fails_is_quoted_and_keeps_nothing_from_being_deleted() {
    let (hook, server) = Hook::start(&["hook.default.svc"]).await;
    hook.define(&server).await;
    server
        .post(&birds("v2"), bird("v2", "wren", json!({"tune": "la"})))
        .await;
    let wren = format!("{}/wren", birds("v1"));
    let failed = "conversion webhook for example.com/v2, Kind=Bird failed: ";
    hook.answers(|review| {
        Some((200, json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": review["request"]["uid"], "result": {"status": "Failed", "message": "no song"}}})))
    });
    let reply = server.get(&wren).await;
    assert_eq!(
        (reply.code, &reply.body["message"], &reply.body["reason"]),
        (500, &json!(format!("{failed}no song")), &Value::Null)
    );
    let page = format!("{}?limit=1", birds("v1"));
    assert_eq!(server.get(&page).await.code, 500);
    let seen = watched(
        &server,
        &format!("{}?watch=1&resourceVersion=1", birds("v1")),
        1,
    )
    .await;
    assert_eq!(
        (seen[0].0.as_str(), &seen[0].1["code"]),
        ("ERROR", &json!(500))
    );
    hook.answers(|_| Some((503, json!("not today"))));
    let reply = server.get(&wren).await;
    assert_eq!(
        reply.body["message"],
        json!(format!(
            "{failed}an error on the server ({:?}) has prevented the request from succeeding",
            "\"not today\""
        ))
    );
    hook.answers(|review| {
        let (code, mut answer) = rightly(review)?;
        answer["response"]["convertedObjects"][0]["metadata"]["uid"] = "x".into();
        Some((code, answer))
    });
    let reply = server.get(&wren).await;
    let message = reply.body["message"].as_str().unwrap();
    assert!(
        message.contains("returned invalid object: must have the same UID: "),
        "{message}"
    );
    // Metadata is read and objects are deleted without the webhook.
    let partial = server
        .ask(
            http::Method::GET,
            &birds("v1"),
            &[(
                "accept",
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            )],
            Vec::new(),
        )
        .await;
    assert_eq!(
        partial.body["items"][0]["metadata"]["name"], "wren",
        "{}",
        partial.text
    );
    assert_eq!(server.delete(&wren).await.code, 200);
    assert_eq!(server.get(&format!("{}/wren", birds("v2"))).await.code, 404);
    server
        .post(&birds("v2"), bird("v2", "robin", json!({"tune": "la"})))
        .await;
    assert_eq!(server.delete(DEFINITION).await.code, 200);
    assert_eq!(server.get(DEFINITION).await.code, 404);
}

#[tokio::test]
async fn the_certificate_is_checked_against_the_bundle_and_the_name() {
    let (mut hook, server) = Hook::start(&["other.default.svc"]).await;
    hook.define(&server).await;
    let refused = server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    assert_eq!(
        refused.body["message"],
        "conversion webhook for example.com/v1, Kind=Bird failed: Post \"https://hook.default.svc:443/convert?timeout=30s\": tls: failed to verify certificate: x509: certificate is not valid for hook.default.svc"
    );
    assert_eq!(server.get(&birds("v2")).await.body["items"], json!([]));
    server.delete(DEFINITION).await;
    let another = rcgen::KeyPair::generate().unwrap();
    let another = rcgen::CertificateParams::new(vec!["hook.default.svc".to_owned()])
        .unwrap()
        .self_signed(&another)
        .unwrap();
    hook.ca_bundle = base64::engine::general_purpose::STANDARD.encode(another.pem());
    hook.define(&server).await;
    let refused = server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    assert!(
        refused
            .text
            .contains("x509: certificate signed by unknown authority"),
        "{}",
        refused.text
    );
    server
        .delete("/api/v1/namespaces/default/services/hook")
        .await;
    let refused = server
        .post(&birds("v1"), bird("v1", "wren", json!({"song": "la"})))
        .await;
    assert!(
        refused.text.contains("service \\\"hook\\\" not found"),
        "{}",
        refused.text
    );
    assert_eq!(hook.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_webhook_that_hangs_holds_nobody_else_and_is_given_up() {
    let (hook, server) = Hook::start(&["hook.default.svc"]).await;
    hook.define(&server).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"count/birds.example.com": "3", "configmaps": "5"}}});
    server
        .post("/api/v1/namespaces/default/resourcequotas", quota)
        .await;
    hook.answers(|_| None);
    let server = Arc::new(server);
    let waiting: Vec<_> = (0..40)
        .map(|number| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let name = format!("b{number}");
                server
                    .post(&birds("v1"), bird("v1", &name, json!({"song": "la"})))
                    .await
            })
        })
        .collect();
    while hook.calls.load(Ordering::SeqCst) < 16 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // From here on nobody needs a socket, and 30 s pass at once when everybody waits.
    tokio::time::pause();
    for name in ["one", "two"] {
        let made = server
            .post(
                crate::test_server::MAPS,
                crate::test_server::config_map(name),
            )
            .await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let made = server
        .post(&birds("v2"), bird("v2", "quick", json!({"tune": "la"})))
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(
        hook.calls.load(Ordering::SeqCst),
        16,
        "the others wait for their turn"
    );
    for reply in waiting {
        let reply = reply.await.unwrap();
        assert_eq!(reply.code, 500, "{}", reply.text);
        assert!(
            reply.text.contains("context deadline exceeded"),
            "{}",
            reply.text
        );
    }
}
