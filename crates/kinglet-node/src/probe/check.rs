//! Asking one question once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::container::Container;
use crate::engine::{Engine, Sandbox};
use crate::probe::connect::{Reached, connect};
use crate::probe::plan::Question;
use crate::wire::Process;

/// What is kept of an answer, for the message (a kubelet's bound).
const ANSWER_BYTES_MAX: usize = 10 << 10;
/// What probes call themselves; Knative's queue-proxy looks at the beginning.
const USER_AGENT: &str = "kube-probe/1.34";
/// `SERVING` in the health protocol.
const GRPC_SERVING: u8 = 1;

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) engine: Engine,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) container: Option<Arc<Container>>,
    /// Environment, directory and user for programs that run inside.
    pub(crate) process: Option<Process>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Good. The port is set when it was reachable only from inside the pod.
    Good { only_inside: Option<u16> },
    /// Bad, in a kubelet's words.
    Bad(String),
}

/// Asks once.
pub(crate) async fn ask(
    target: &Target,
    question: &Question,
    from_inside: bool,
    timeout: Duration,
) -> Answer {
    let asked = async {
        match question {
            Question::Tcp { host, port } => {
                connect(&target.sandbox, host.as_deref(), *port, from_inside)
                    .await
                    .map(|reached| only_inside(&reached, *port))
                    .map_err(|error| {
                        format!(
                            "dial tcp {}:{port}: {}",
                            host.clone()
                                .unwrap_or_else(|| target.sandbox.address().to_string()),
                            plain(&error)
                        )
                    })
            }
            Question::Http { .. } => http(target, question, from_inside).await,
            Question::Grpc { port, service } => grpc(target, *port, service, from_inside).await,
            Question::Exec(command) => exec(target, command).await,
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(only_inside)) => Answer::Good { only_inside },
        Ok(Err(message)) => Answer::Bad(message),
        Err(_) => Answer::Bad(match question {
            Question::Http {
                port, path, https, ..
            } => format!(
                "Get \"{}://{}:{port}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                if *https { "https" } else { "http" },
                target.sandbox.address()
            ),
            Question::Tcp { port, .. } => {
                format!("dial tcp {}:{port}: i/o timeout", target.sandbox.address())
            }
            Question::Exec(command) => format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                timeout.as_secs().max(1)
            ),
            Question::Grpc { port, .. } => format!(
                "timeout: failed to connect service \"{}:{port}\" within {timeout:?}",
                target.sandbox.address()
            ),
        }),
    }
}

fn only_inside(reached: &Reached, port: u16) -> Option<u16> {
    reached.only_inside.then_some(port)
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    }
}

async fn http(
    target: &Target,
    question: &Question,
    from_inside: bool,
) -> Result<Option<u16>, String> {
    let Question::Http {
        host,
        port,
        path,
        https,
        headers,
    } = question
    else {
        return Ok(None);
    };
    let shown = format!(
        "{}://{}:{port}{path}",
        if *https { "https" } else { "http" },
        target.sandbox.address()
    );
    let failed = |error: &dyn std::fmt::Display| format!("Get \"{shown}\": {error}");
    let reached = connect(&target.sandbox, host.as_deref(), *port, from_inside)
        .await
        .map_err(|error| {
            failed(&format!(
                "dial tcp {}:{port}: {}",
                target.sandbox.address(),
                plain(&error)
            ))
        })?;
    let inside = only_inside(&reached, *port);
    let default_host = host
        .clone()
        .unwrap_or_else(|| target.sandbox.address().to_string());
    let mut request = http::Request::get(path.as_str());
    let mut named = Vec::new();
    for (name, value) in headers {
        named.push(name.to_ascii_lowercase());
        request = request.header(name, value);
    }
    for (name, value) in [
        ("host", format!("{default_host}:{port}")),
        ("user-agent", USER_AGENT.to_owned()),
        ("accept", "*/*".to_owned()),
        ("connection", "close".to_owned()),
    ] {
        if !named.iter().any(|known| known == name) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Full::new(Bytes::new()))
        .map_err(|error| failed(&error))?;
    if *https {
        let stream = crate::probe::check::tls::wrap(reached.stream)
            .await
            .map_err(|error| failed(&error))?;
        return exchange(stream, request)
            .await
            .map_err(|error| failed_or_status(&error, &failed))
            .map(|()| inside);
    }
    exchange(reached.stream, request)
        .await
        .map_err(|error| failed_or_status(&error, &failed))
        .map(|()| inside)
}

enum HttpFailure {
    Status(u16),
    Broken(String),
}

fn failed_or_status(
    failure: &HttpFailure,
    failed: &dyn Fn(&dyn std::fmt::Display) -> String,
) -> String {
    match failure {
        HttpFailure::Status(code) => format!("HTTP probe failed with statuscode: {code}"),
        HttpFailure::Broken(why) => failed(why),
    }
}

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<(), HttpFailure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| HttpFailure::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let response = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            Err(HttpFailure::Status(status.as_u16()))
        }
    };
    // The connection is driven here and dropped with the answer: nothing stays behind.
    tokio::select! {
        response = response => response,
        ended = connection => Err(HttpFailure::Broken(ended.err().map_or_else(|| "EOF".to_owned(), |error| error.to_string()))),
    }
}

async fn grpc(
    target: &Target,
    port: u16,
    service: &str,
    from_inside: bool,
) -> Result<Option<u16>, String> {
    let address = target.sandbox.address();
    let failed = |error: &dyn std::fmt::Display| {
        format!("failed to connect service \"{address}:{port}\": {error}")
    };
    let reached = connect(&target.sandbox, None, port, from_inside)
        .await
        .map_err(|error| failed(&plain(&error)))?;
    let inside = only_inside(&reached, port);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(reached.stream))
            .await
            .map_err(|error| failed(&error))?;
    let asked = async {
        let request = http::Request::post(format!(
            "http://{address}:{port}/grpc.health.v1.Health/Check"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(Full::new(health_request(service)))
        .map_err(|error| failed(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let in_headers = response.headers().get("grpc-status").cloned();
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let collected = limited.collect().await.map_err(|error| failed(&error))?;
        let status = collected
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned())
            .or(in_headers);
        match status.as_ref().map(http::HeaderValue::as_bytes) {
            Some(b"0") | None => {}
            Some(b"12") => return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
            Some(other) => return Err(format!("error: health rpc failed: code = {}", String::from_utf8_lossy(other))),
        }
        match health_status(&collected.to_bytes()) {
            Some(GRPC_SERVING) => Ok(inside),
            other => Err(format!(
                "service unhealthy (responded with {:?})",
                ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
                    .get(usize::from(other.unwrap_or(0)))
                    .unwrap_or(&"UNKNOWN")
            )),
        }
    };
    tokio::select! {
        answer = asked => answer,
        ended = connection => Err(failed(&ended.err().map_or_else(|| "EOF".to_owned(), |error| error.to_string()))),
    }
}

/// `HealthCheckRequest { service }` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("below 128"));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    Bytes::from(frame)
}

/// The status in a framed `HealthCheckResponse`.
fn health_status(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [0x08, status, ..] => Some(*status),
        [] => Some(0),
        _ => None,
    }
}

async fn exec(target: &Target, command: &[String]) -> Result<Option<u16>, String> {
    let (Some(container), Some(process)) = (&target.container, &target.process) else {
        return Err("there is no container to run a command in".to_owned());
    };
    let process = Process {
        argv: command.to_vec(),
        ..process.clone()
    };
    let output = target
        .engine
        .exec(container, process, ANSWER_BYTES_MAX)
        .await
        .map_err(|error| error.to_string())?;
    if output.code == 0 {
        Ok(None)
    } else {
        Err(output.text)
    }
}

/// TLS to pods, whose certificates nobody has vouched for: a probe asks whether a server answers, not who it is.
pub(crate) mod tls {
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Anybody(Arc<CryptoProvider>);

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    pub(crate) async fn wrap(stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let peer = stream.peer_addr()?.ip();
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::IpAddress(peer.into()), stream)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_protocol_in_bytes() {
        assert_eq!(health_request(""), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(
            health_request("ab"),
            Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b'])
        );
        assert_eq!(health_request(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(
            health_status(&[0, 0, 0, 0, 0]),
            Some(0),
            "an empty message is UNKNOWN"
        );
        assert_eq!(health_status(&[0]), None);
    }
}
