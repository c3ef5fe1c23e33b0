//! What is refused before a session with a container is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, header};
use http_body_util::Full;
use kinglet_apiserver::{Connection, Options, PodSessions, Session, SessionOptions, Status};
use serde_json::json;
use tower::Service as _;

use crate::test_server::TestServer;

/// Counts what it is asked to run.
#[derive(Default)]
struct Counted(AtomicUsize);

impl PodSessions for Counted {
    fn open(
        &self,
        _namespace: &str,
        _pod: &str,
        _options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        async { Err(Status::new(500, "InternalError", "opened")) }.boxed()
    }

    fn connect(
        &self,
        _namespace: &str,
        _pod: &str,
        _port: u16,
    ) -> BoxFuture<'static, Result<Connection, String>> {
        async { Err("closed".to_owned()) }.boxed()
    }
}

/// The status code of an `exec` over a WebSocket with these headers besides the usual ones.
async fn exec(server: &TestServer, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get("/api/v1/namespaces/default/pods/p/exec?command=x&stdout=true")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-protocol", "v5.channel.k8s.io");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::new(Bytes::new())).unwrap();
    let connection = hyper::upgrade::on(&mut request);
    request.extensions_mut().insert(connection);
    let Ok(response) = server.api.service(server.user.clone()).call(request).await;
    response.status().as_u16()
}

#[tokio::test]
async fn a_program_runs_only_after_a_whole_handshake() {
    let sessions = Arc::new(Counted::default());
    let server = TestServer::with(Options {
        sessions: Some(sessions.clone()),
        ..Options::default()
    })
    .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
    });
    let made = server.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let (key, version) = (
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    );
    for headers in [&[][..], &[version], &[key, ("sec-websocket-version", "8")]] {
        assert_eq!(exec(&server, headers).await, 400, "{headers:?}");
        assert_eq!(sessions.0.load(Ordering::Relaxed), 0, "{headers:?}");
    }
    assert_eq!(exec(&server, &[key, version]).await, 500, "it was opened");
    assert_eq!(sessions.0.load(Ordering::Relaxed), 1);
}
