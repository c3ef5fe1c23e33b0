//! A data plane with its control plane played by the test, containers made of hyper, and clients made of sockets.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinglet_dataplane::{Dataplane, Handle, Listener, Options};
use kinglet_decide::feed::{Endpoint, Key, Protocol, Report, RevisionBackend, Update};
use kinglet_decide::route::{
    HttpOption, IngressRule, PathRule, RouteTable, Split, Target, Visibility,
};
use kinglet_process::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) handle: Handle,
    pub(crate) external: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) reports: mpsc::Receiver<Report>,
    applied: watch::Receiver<u64>,
    version: u64,
    rules: Vec<IngressRule>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let (updates, update_queue) = mpsc::channel(64);
        let (report_queue, reports) = mpsc::channel(64);
        let (applied_now, applied) = watch::channel(0);
        let (dataplane, handle) = Dataplane::new(
            options,
            update_queue,
            report_queue,
            applied_now,
            Clock::system(),
        );
        let stop = CancellationToken::new();
        tokio::spawn(dataplane.run(stop.clone()));
        let (external, local) = (listen().await, listen().await);
        let addresses = (external.local_addr().unwrap(), local.local_addr().unwrap());
        handle.serve(external, Listener::External);
        handle.serve(local, Listener::ClusterLocal);
        let (external, local) = addresses;
        Self {
            handle,
            external,
            local,
            updates,
            reports,
            applied,
            version: 0,
            rules: Vec::new(),
            stop,
        }
    }

    /// Puts `rules` in force, and everything sent before.
    pub(crate) async fn route(&mut self, rules: Vec<IngressRule>) {
        self.rules = rules;
        self.settle().await;
    }

    /// Waits until all updates are in force.
    pub(crate) async fn settle(&mut self) {
        self.version += 1;
        let version = self.version;
        let table = RouteTable::build(version, self.rules.clone());
        self.updates
            .send(Update::Routes(Arc::new(table)))
            .await
            .unwrap();
        within(self.applied.wait_for(|applied| *applied == version))
            .await
            .unwrap();
    }

    /// Waits until route table `version`, or a later one, is in force.
    pub(crate) async fn in_force(&mut self, version: u64) {
        within(self.applied.wait_for(|applied| *applied >= version))
            .await
            .unwrap();
    }

    pub(crate) async fn revision(&mut self, backend: RevisionBackend) {
        self.updates
            .send(Update::Revision(
                backend.revision.clone(),
                Some(Arc::new(backend)),
            ))
            .await
            .unwrap();
    }

    /// One Revision `one` on host `one.test`.
    pub(crate) async fn one(&mut self, backend: RevisionBackend) {
        self.revision(backend).await;
        self.route(vec![rule("one.test", vec![to(&[(100, "one")])])])
            .await;
    }

    pub(crate) async fn next_poke(&mut self) -> Key {
        loop {
            if let Report::Poke { revision, .. } = within(self.reports.recv())
                .await
                .expect("the data plane reports")
            {
                return revision;
            }
        }
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this takes too long")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn to(splits: &[(u8, &str)]) -> PathRule {
    let splits = splits
        .iter()
        .map(|(percent, name)| Split {
            percent: *percent,
            target: Target {
                namespace: "ns".into(),
                service: (*name).into(),
                port: 80,
            },
            append_headers: vec![
                ("Knative-Serving-Revision".into(), (*name).into()),
                ("Knative-Serving-Namespace".into(), "ns".into()),
            ],
        })
        .collect();
    PathRule {
        splits,
        ..PathRule::default()
    }
}

pub(crate) fn rule(host: &str, paths: Vec<PathRule>) -> IngressRule {
    IngressRule {
        certificates: Vec::new(),
        ingress: Key::new("ns", "ingress"),
        hosts: vec![host.into()],
        visibility: Visibility::External,
        http_option: HttpOption::Enabled,
        probe_hash: "ourhash".into(),
        paths,
    }
}

pub(crate) fn backend(name: &str, addresses: &[SocketAddr]) -> RevisionBackend {
    RevisionBackend {
        revision: Key::new("ns", name),
        configuration: name.into(),
        container_concurrency: 0,
        timeout: Duration::from_secs(30),
        response_start_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        protocol: Protocol::Http1,
        endpoints: endpoints(addresses),
    }
}

pub(crate) fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses
        .iter()
        .map(|address| Endpoint {
            pod: format!("pod-{}", address.port()).into(),
            address: *address,
        })
        .collect()
}

pub(crate) type Reply = Response<BoxBody<Bytes, hyper::Error>>;

pub(crate) fn reply(body: impl Into<Bytes>) -> Reply {
    Response::new(
        Full::new(body.into())
            .map_err(|never| match never {})
            .boxed(),
    )
}

/// A container: HTTP/1 with upgrades, and HTTP/2 with prior knowledge, on one port.
pub(crate) async fn container<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A container that answers `text` to everything.
pub(crate) async fn says(text: &'static str) -> SocketAddr {
    container(move |_| async move { reply(text) }).await
}

/// A container that answers the request as it saw it: request line, then headers, in lower case, sorted.
pub(crate) async fn mirror() -> SocketAddr {
    container(|request: Request<Incoming>| async move {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        let first = format!(
            "{} {} {:?}",
            request.method(),
            request.uri(),
            request.version()
        );
        reply(format!("{first}\n{}\n", lines.join("\n")))
    })
    .await
}

#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A connected HTTP/1 client.
pub(crate) struct H1(hyper::client::conn::http1::SendRequest<BoxBody<Bytes, Infallible>>);

impl H1 {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<BoxBody<Bytes, Infallible>>,
    ) -> Response<Incoming> {
        within(self.0.ready()).await.unwrap();
        within(self.0.send_request(request)).await.unwrap()
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Got {
        let request = Request::get(path)
            .header("host", host)
            .body(empty())
            .unwrap();
        collect(self.send(request).await).await
    }
}

/// A connected HTTP/2 client.
pub(crate) async fn h2(
    address: SocketAddr,
) -> hyper::client::conn::http2::SendRequest<BoxBody<Bytes, Infallible>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn empty() -> BoxBody<Bytes, Infallible> {
    Empty::new().boxed()
}

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}

pub(crate) async fn collect(response: Response<Incoming>) -> Got {
    let (parts, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    Got {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Got {
    H1::to(address).await.get(host, path).await
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads from a stream until `end` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let text = String::from_utf8_lossy(&seen);
        if text.contains(end) {
            return text.into_owned();
        }
        let count = within(stream.read(&mut buffer)).await.unwrap();
        assert_ne!(
            count,
            0,
            "closed before {end:?}: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// Upgrades to a protocol that sends everything back in capitals until its reader is done, and then says bye.
pub(crate) async fn capitals() -> std::net::SocketAddr {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                assert!(head.to_lowercase().contains("upgrade: capitals"), "{head}");
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\nHI ").await.unwrap();
                let mut buffer = [0; 1024];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(count) => stream
                            .write_all(&buffer[..count].to_ascii_uppercase())
                            .await
                            .unwrap(),
                    }
                }
                stream.write_all(b"BYE").await.unwrap();
            });
        }
    });
    address
}
