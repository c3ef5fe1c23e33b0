//! Once over real sockets: the host's listener, and sinks behind http and https.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use kinglet_decide::call::{Answer, CallBody, HttpService};
use kinglet_process::{Clock, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::world::*;
use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;
use crate::feed::{Destination, Update};
use crate::transport::{Direct, OwnNetwork};
use crate::{Handle, NoAuthority, Options, Transport, listen};

/// A sink that keeps the ids of its events.
struct Ids(Arc<Mutex<Vec<String>>>);

impl HttpService for Ids {
    fn call(&self, request: http::Request<CallBody>) -> Answer<'_> {
        Box::pin(async move {
            let id = request.headers()["ce-id"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.0.lock().push(format!("{id} {}", body.len()));
            crate::answer::streamed(crate::answer::status(http::StatusCode::ACCEPTED))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_through_sockets_with_and_without_tls() {
    kinglet_process::tls::install_provider();
    let tasks = Tasks::new();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let sink = async |tls| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::new(Mutex::new(Vec::new()));
        listen::serve(listener, Arc::new(Ids(got.clone())), tls, &tasks);
        (port, got)
    };
    let (plain_port, plain) = sink(None).await;
    let (tls_port, secured) = sink(Some(Arc::new(server))).await;

    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(&tasks));
    let options = Options {
        engines: HashMap::from([("InMemoryChannel".into(), engine)]),
        transport: Arc::new(Direct::new(OwnNetwork)),
        tokens: Arc::new(NoAuthority),
        verify: Arc::new(NoAuthority),
        clock: Clock::system(),
        system_namespace: "knative-eventing".into(),
        shortcuts: true,
        ttl_default: 255,
    };
    let (handle, _reports) = Handle::new(options, &tasks);
    let destination = |url: String, trusted: bool| Destination {
        ca_certs: trusted.then(|| certified.cert.pem().into()),
        ..Destination::plain(url)
    };
    let mut subscribers = vec![
        subscriber("plain", None),
        subscriber("tls", None),
        subscriber("untrusted", None),
    ];
    subscribers[0].subscriber = Some(destination(
        format!("http://127.0.0.1:{plain_port}/"),
        false,
    ));
    subscribers[1].subscriber = Some(destination(format!("https://localhost:{tls_port}/"), true));
    subscribers[2].subscriber = Some(destination(format!("https://localhost:{tls_port}/"), false));
    let mut route = channel_of(subscribers);
    route.asynchronous = true;
    let id = channel_id("InMemoryChannel", "c");
    handle
        .apply(Update::Channel(id, Some(route)))
        .await
        .unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    listen::serve(
        listener,
        handle.channels("InMemoryChannel", false),
        None,
        &tasks,
    );
    // 1 MB, and more headers than hyper takes when nobody asks.
    let client = Direct::new(OwnNetwork);
    let to = Destination::plain(format!("http://{address}/ns/c"));
    for number in 0..50 {
        let mut request = event_request(&to.url, &number.to_string(), "foo");
        for extension in 0..98 {
            request = request.header(format!("ce-ext{extension}"), "v");
        }
        let body = bytes::Bytes::from(vec![b'x'; if number == 0 { 1 << 20 } else { 10 }]);
        let answer = client.send(&to, request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 202, "{number}");
    }
    let all = |got: &Arc<Mutex<Vec<String>>>| got.lock().len() == 50;
    until("the plain sink", || all(&plain)).await;
    until("the secured sink", || all(&secured)).await;
    assert!(plain.lock().contains(&format!("0 {}", 1 << 20)));
    until("the refusal", || {
        handle.subscriptions().iter().any(|one| {
            let words = one.failing.as_ref().map(|failing| failing.words.clone());
            &*one.name == "untrusted" && words.is_some_and(|words| words.contains("tls: "))
        })
    })
    .await;
    handle.drain(Duration::from_secs(5)).await;
    assert!(tasks.shutdown(Duration::from_secs(20)).await);
}
