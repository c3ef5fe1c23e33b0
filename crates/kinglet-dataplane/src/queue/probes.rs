//! The readiness probes of a user container, as its queue-proxy runs them (spec/serving.md 6.3.3).

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use kinglet_process::{Tasks, unverified};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::QueueConfig;
use crate::connect::Spawner;

/// Without a period (Knative's own default), attempts follow each other at this pace, each this long at most.
const EAGER_PAUSE: Duration = Duration::from_millis(50);
const EAGER_TIMEOUT: Duration = Duration::from_millis(100);
const EAGER_PATIENCE: Duration = Duration::from_secs(10);
/// What kubelets of the Kubernetes that we serve call themselves.
const USER_AGENT: &str = "kube-probe/1.34";
/// A health answer of gRPC is a few bytes.
const GRPC_ANSWER_MAX: usize = 1024;

/// One probe: a core/v1 Probe as `SERVING_READINESS_PROBE` holds it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessProbe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: u32,
    #[serde(default)]
    period_seconds: u32,
    #[serde(default)]
    success_threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct TcpSocket {
    port: u16,
    host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

impl ReadinessProbe {
    /// One probe, or with `many` a list of them.
    pub fn parse(text: &str, many: bool) -> Result<Vec<Self>, String> {
        let probes = match many {
            true => serde_json::from_str::<Vec<Self>>(text),
            false => serde_json::from_str::<Self>(text).map(|probe| vec![probe]),
        }
        .map_err(|error| format!("it is no Probe in JSON: {error}"))?;
        for probe in &probes {
            let handlers = [
                probe.http_get.is_some(),
                probe.tcp_socket.is_some(),
                probe.grpc.is_some(),
            ];
            if handlers.iter().filter(|given| **given).count() != 1 {
                return Err("a probe needs exactly one of httpGet, tcpSocket and grpc".to_owned());
            }
        }
        Ok(probes)
    }

    /// Whether it passes, after as many attempts as it is worth.
    async fn passes(&self, user: IpAddr, detect_http2: bool) -> bool {
        if self.period_seconds > 0 {
            let timeout = Duration::from_secs(self.timeout_seconds.max(1).into());
            return self.attempt(user, timeout, detect_http2).await;
        }
        let until = Instant::now() + EAGER_PATIENCE;
        let mut successes = 0;
        loop {
            let began = Instant::now();
            if self.attempt(user, EAGER_TIMEOUT, detect_http2).await {
                successes += 1;
                if successes >= self.success_threshold {
                    return true;
                }
            } else {
                successes = 0;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep_until(began + EAGER_PAUSE).await;
        }
    }

    async fn attempt(&self, user: IpAddr, timeout: Duration, detect_http2: bool) -> bool {
        let attempt = async {
            if let Some(probe) = &self.http_get {
                return probe.passes(user, detect_http2).await;
            }
            if let Some(probe) = &self.tcp_socket {
                return connect(user, probe.host.as_deref(), probe.port)
                    .await
                    .map(drop);
            }
            match &self.grpc {
                Some(probe) => probe.passes(user).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(())) => true,
            Ok(Err(reason)) => {
                tracing::debug!(reason, "readiness probe failed");
                false
            }
            Err(_elapsed) => false,
        }
    }
}

/// Connects to `host`, else to the user container.
async fn connect(user: IpAddr, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let fail = |error: std::io::Error| error.to_string();
    match host.filter(|host| !host.is_empty() && *host != "127.0.0.1") {
        Some(host) => TcpStream::connect((host, port)).await.map_err(fail),
        None => TcpStream::connect(SocketAddr::new(user, port))
            .await
            .map_err(fail),
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl HttpGet {
    async fn passes(&self, user: IpAddr, detect_http2: bool) -> Result<(), String> {
        let secure = self
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        if detect_http2 && !secure {
            let stream = connect(user, self.host.as_deref(), self.port).await?;
            if let Ok(status) = self.over_h2(stream).await {
                return judge(status);
            }
        }
        let stream = connect(user, self.host.as_deref(), self.port).await?;
        let stream: Box<dyn Duplex> = if secure {
            let name = unverified::server_name(self.host.as_deref(), user);
            let config = unverified::client_config().map_err(|error| error.to_string())?;
            let secured = TlsConnector::from(config).connect(name, stream).await;
            Box::new(secured.map_err(|error| error.to_string())?)
        } else {
            Box::new(stream)
        };
        judge(self.over_h1(stream).await?)
    }

    fn request(&self, version: Version) -> Result<Request<Empty<Bytes>>, String> {
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", self.path);
        let uri = match version {
            Version::HTTP_2 => format!("http://{host}:{}{path}", self.port),
            _ => path,
        };
        let mut request = Request::builder().method(Method::GET).version(version);
        request = request.uri(uri);
        if version != Version::HTTP_2 {
            request = request.header(http::header::HOST, format!("{host}:{}", self.port));
        }
        request = request.header(http::header::USER_AGENT, USER_AGENT);
        let mut request = request
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        for header in &self.http_headers {
            let name = HeaderName::try_from(header.name.as_str());
            let value = HeaderValue::from_str(&header.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }

    async fn over_h1(&self, stream: Box<dyn Duplex>) -> Result<u16, String> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(self.request(Version::HTTP_11)?);
        driven(connection, answer)
            .await
            .map(|answer| answer.status().as_u16())
    }

    async fn over_h2(&self, stream: TcpStream) -> Result<u16, String> {
        let (mut sender, connection) =
            http2::handshake(Spawner(Tasks::new()), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
        let answer = sender.send_request(self.request(Version::HTTP_2)?);
        driven(connection, answer)
            .await
            .map(|answer| answer.status().as_u16())
    }
}

fn judge(status: u16) -> Result<(), String> {
    match status {
        200..=399 => Ok(()),
        _ => Err(format!("HTTP status {status}")),
    }
}

impl Grpc {
    /// `grpc.health.v1.Health/Check` must say SERVING.
    async fn passes(&self, user: IpAddr) -> Result<(), String> {
        let stream = connect(user, None, self.port).await?;
        let (mut sender, connection) =
            http2::handshake(Spawner(Tasks::new()), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
        let uri = format!("http://127.0.0.1:{}/grpc.health.v1.Health/Check", self.port);
        let request = Request::post(uri.parse::<Uri>().map_err(|error| error.to_string())?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", USER_AGENT)
            .body(Full::new(Bytes::from(self.question())))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let body = Limited::new(answer.into_body(), GRPC_ANSWER_MAX);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(body.to_bytes())
        };
        let body = tokio::select! {
            body = exchange => body?,
            ended = connection => return Err(format!("the connection ended: {ended:?}")),
        };
        // One message, uncompressed: field 1, SERVING.
        match body.get(5..) {
            Some([0x08, 1, ..]) if body[0] == 0 => Ok(()),
            _ => Err("its health is not SERVING".to_owned()),
        }
    }

    /// A framed HealthCheckRequest: field 1 is the service's name.
    fn question(&self) -> Vec<u8> {
        let service = self.service.as_deref().unwrap_or_default();
        let mut message = Vec::new();
        if !service.is_empty() {
            message.push(0x0a);
            // A length as protobuf writes it: seven bits a byte, the low ones first.
            let mut length = service.len();
            while length >= 0x80 {
                message.push(0x80 | (length & 0x7f).to_le_bytes()[0]);
                length >>= 7;
            }
            message.push(length.to_le_bytes()[0]);
            message.extend_from_slice(service.as_bytes());
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut framed = vec![0];
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&message);
        framed
    }
}

/// Moves the connection's bytes until the answer is here.
async fn driven(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> Result<Response<Incoming>, String> {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = answer.as_mut() => answer.map_err(|error| error.to_string()),
        ended = connection => match ended {
            // The last bytes of a connection that is closed after its answer.
            Ok(()) => answer.await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// All probes of one container. Callers at the same time share one run.
pub(crate) struct Checks {
    make: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    /// Held by those who wait for it alone: a run that nobody waits for any more is not resumed later.
    running: Mutex<Option<WeakShared<BoxFuture<'static, bool>>>>,
}

impl Checks {
    pub(super) fn new(config: &QueueConfig, user: IpAddr) -> Self {
        let (probes, detect_http2) = (config.probes.clone(), config.detect_http2);
        Self::of(move || {
            let probes = probes.clone();
            async move {
                let all = probes.iter().map(|probe| probe.passes(user, detect_http2));
                let outcomes = futures_util::future::join_all(all).await;
                outcomes.into_iter().all(|passes| passes)
            }
            .boxed()
        })
    }

    fn of(make: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            running: Mutex::default(),
        }
    }

    /// Whether all of them pass now.
    pub(crate) async fn pass(&self) -> bool {
        let run = {
            let mut running = self.running.lock();
            let under_way = running.as_ref().and_then(WeakShared::upgrade);
            match under_way.filter(|run| run.peek().is_none()) {
                Some(run) => run,
                None => {
                    let run = (self.make)().shared();
                    *running = run.downgrade();
                    run
                }
            }
        };
        run.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_one_run() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let checks = Checks::of(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                true
            }
            .boxed()
        });
        let (one, other) = tokio::join!(checks.pass(), checks.pass());
        assert!(one && other);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(checks.pass().await);
        assert_eq!(runs.load(Ordering::SeqCst), 2, "and the next one is new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_nobody_waits_for_is_not_resumed() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let checks = Checks::of(move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                run > 0
            }
            .boxed()
        });
        // Who asked hangs up after 300 ms, as an activator does.
        let given_up = tokio::time::timeout(Duration::from_millis(300), checks.pass()).await;
        assert!(given_up.is_err());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            checks.pass().await,
            "what was begun a minute ago is no answer"
        );
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_health_question_is_framed() {
        let grpc = |service: Option<&str>| Grpc {
            port: 1,
            service: service.map(str::to_owned),
        };
        assert_eq!(grpc(None).question(), [0, 0, 0, 0, 0]);
        assert_eq!(grpc(Some("ab")).question(), [0, 0, 0, 0, 4, 10, 2, 97, 98]);
    }
}
