//! Calls of webhooks that users name (`clientConfig`): over the egress, with their certificate authority, one bounded answer.
//!
//! Always: a call never reaches this machine's own addresses (the root gives a [`Dial`] that leaves by the egress); a
//! `service` is called at its cluster address, like a Pod calls it; the server proves to be `NAME.NAMESPACE.svc` or the
//! host of the URL; redirects are not followed; time is bounded by the caller, the answer here.

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::object::{items, number, text};
use crate::state::ServerState;

/// Largest answer: a review of 2 MiB of objects may grow some.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Part of the body of a refusal that is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// Connects to a host name or address and a port on a tenant's behalf; the error is what a dialer would say.
pub type Dial =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, Result<TcpStream, String>> + Send + Sync>;

/// Authorities that the machine trusts, for webhooks that name none.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

#[derive(Debug)]
enum Place {
    Url {
        host: String,
        port: u16,
    },
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
}

/// Where a webhook is.
#[derive(Debug)]
pub(crate) struct Endpoint {
    place: Place,
    /// Path and query.
    path: String,
    /// Its authorities; none for those that the machine trusts.
    roots: Option<Arc<RootCertStore>>,
}

impl Endpoint {
    /// Reads a `clientConfig` that has been validated.
    pub(crate) fn read(config: &Value) -> Result<Self, String> {
        let roots = match text(config, &["caBundle"]) {
            "" => None,
            bundle => Some(Arc::new(roots(bundle)?)),
        };
        if let Some(service) = config.get("service").filter(|service| service.is_object()) {
            let path = text(service, &["path"]);
            let slash = if path.starts_with('/') { "" } else { "/" };
            let port = number(service, &["port"]).unwrap_or(443);
            return Ok(Self {
                place: Place::Service {
                    namespace: text(service, &["namespace"]).to_owned(),
                    name: text(service, &["name"]).to_owned(),
                    port: u16::try_from(port).map_err(|_| format!("port {port} is none"))?,
                },
                path: format!("{slash}{path}"),
                roots,
            });
        }
        let url: Uri = text(config, &["url"])
            .parse()
            .map_err(|error| format!("the URL of the webhook cannot be used: {error}"))?;
        let host = url.host().unwrap_or("").to_owned();
        Ok(Self {
            place: Place::Url {
                host,
                port: url.port_u16().unwrap_or(443),
            },
            path: url
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            roots,
        })
    }

    /// The host as the certificate names it, and the port.
    fn authority(&self) -> (String, u16) {
        match &self.place {
            Place::Url { host, port } => (host.clone(), *port),
            Place::Service {
                namespace,
                name,
                port,
            } => (format!("{name}.{namespace}.svc"), *port),
        }
    }

    fn target(&self) -> String {
        let sign = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{sign}timeout=30s", self.path)
    }

    /// The URL as errors show it.
    pub(crate) fn shown_url(&self) -> String {
        let (host, port) = self.authority();
        format!("https://{host}:{port}{}", self.target())
    }

    /// Host or address to connect to.
    fn destination(&self, server: &ServerState) -> Result<(String, u16), String> {
        let Place::Service {
            namespace,
            name,
            port,
        } = &self.place
        else {
            return Ok(self.authority());
        };
        let stored = server
            .store
            .get(&format!("core/services/{namespace}/{name}"))
            .ok_or_else(|| format!("service \"{name}\" not found"))?;
        let service: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
        if text(&service, &["spec", "type"]) == "ExternalName" {
            return Ok((text(&service, &["spec", "externalName"]).to_owned(), *port));
        }
        let wanted = i64::from(*port);
        if !items(&service, &["spec", "ports"])
            .iter()
            .any(|each| number(each, &["port"]) == Some(wanted))
        {
            return Err(format!(
                "no service port {port} found for service \"{name}\""
            ));
        }
        match text(&service, &["spec", "clusterIP"]) {
            "" | "None" => Err(format!(
                "cannot route to service \"{name}\": it has no cluster IP"
            )),
            address => Ok((address.to_owned(), *port)),
        }
    }
}

fn roots(bundle: &str) -> Result<RootCertStore, String> {
    let pem = STANDARD
        .decode(bundle)
        .map_err(|error| format!("the caBundle is not base64: {error}"))?;
    let certificates = kinglet_process::tls::authorities(&pem)
        .map_err(|error| format!("the caBundle cannot be used: {error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}

/// Posts a body; answers the body of a success, or the sentence of what went wrong, as Go's client words it.
pub(crate) async fn call(
    server: &ServerState,
    endpoint: &Endpoint,
    body: Bytes,
) -> Result<Bytes, String> {
    let post = |detail: String| format!("Post \"{}\": {detail}", endpoint.shown_url());
    let (status, answer) = exchange(server, endpoint, body).await.map_err(post)?;
    if status.is_success() {
        return Ok(answer);
    }
    Err(refusal(status, &answer))
}

async fn exchange(
    server: &ServerState,
    endpoint: &Endpoint,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let (address, port) = endpoint.destination(server)?;
    let dial = server
        .dial
        .get()
        .ok_or("there is no network yet from which webhooks are called")?;
    let stream = dial(address, port).await?;
    let (host, _) = endpoint.authority();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("{host} is no name that a certificate can have"))?;
    let config = client_config(endpoint)?;
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| tls_words(&error, bare))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.target())
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kinglet")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let asked = async move {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let answer = read.map_err(|error| {
            format!("reading the answer (of at most {ANSWER_BYTES_MAX} bytes): {error}")
        })?;
        Ok((status, answer.to_bytes()))
    };
    let (mut asked, mut connection) = (pin!(asked), pin!(connection));
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // What arrived before the connection ended is still read.
        _ = &mut connection => asked.await,
    }
}

fn client_config(endpoint: &Endpoint) -> Result<Arc<ClientConfig>, String> {
    let roots = endpoint
        .roots
        .clone()
        .unwrap_or_else(|| Arc::clone(&SYSTEM_ROOTS));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// A failed handshake in the words that people look up.
fn tls_words(error: &std::io::Error, host: &str) -> String {
    use rustls::{CertificateError, Error};
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let detail = match inner {
        // A bad signature is another authority of the same name.
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "x509: certificate signed by unknown authority".to_owned(),
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => format!("x509: certificate is not valid for {host}"),
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "x509: certificate has expired or is not yet valid".to_owned(),
        Some(other) => return format!("tls: {other}"),
        None => return error.to_string(),
    };
    format!("tls: failed to verify certificate: {detail}")
}

/// What a client of Kubernetes says about an answer that is no success.
fn refusal(status: StatusCode, answer: &Bytes) -> String {
    let told: Value = serde_json::from_slice(answer).unwrap_or_default();
    if text(&told, &["kind"]) == "Status" && !text(&told, &["message"]).is_empty() {
        return text(&told, &["message"]).to_owned();
    }
    match status {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
        StatusCode::UNAUTHORIZED => {
            "the server has asked for the client to provide credentials".to_owned()
        }
        StatusCode::BAD_REQUEST => {
            "the server rejected our request for an unknown reason".to_owned()
        }
        status if status.is_server_error() => {
            let shown: String = String::from_utf8_lossy(answer)
                .chars()
                .take(SHOWN_CHARS_MAX)
                .collect();
            format!(
                "an error on the server ({:?}) has prevented the request from succeeding",
                shown.trim()
            )
        }
        status => format!(
            "the server responded with the status code {} but did not return more details",
            status.as_u16()
        ),
    }
}
