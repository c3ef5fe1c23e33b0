//! One registry: what a tag means there, and the blobs of an image.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use kinglet_process::Egress;
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use tokio::io::AsyncWriteExt as _;

use crate::egress_proxy::{EgressProxy, Trouble};
use crate::progress::{Progress, ProgressEvent};
use crate::registries::Source;
use crate::{Credentials, ImageName};

/// Compressed bytes of one layer.
const LAYER_BYTES_MAX: u64 = 16 << 30;
/// Bytes of an image configuration.
const CONFIG_BYTES_MAX: usize = 4 << 20;
/// Layers of one image (overlayfs takes 500; docker writes at most 127).
pub(crate) const LAYERS_MAX: usize = 127;

/// Patience with registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes of an answer; a registry that says nothing for this long is taken for dead.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
        }
    }
}

/// A source that does not serve an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceError {
    pub message: String,
    /// The registry said so itself; it was not out of reach.
    pub answered: bool,
}

impl SourceError {
    pub(crate) fn answered(message: String) -> Self {
        Self {
            message,
            answered: true,
        }
    }

    /// An error on this machine, not at the registry.
    pub(crate) fn local(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            answered: true,
        }
    }

    fn unreachable(message: String) -> Self {
        Self {
            message,
            answered: false,
        }
    }
}

/// What a manifest names.
pub(crate) struct Manifest {
    /// Of the manifest the reference led to (the list's, if it was a list).
    pub digest: String,
    /// Image configuration document.
    pub config: Vec<u8>,
    /// Bottom first, as the manifest has them.
    pub layers: Vec<OciDescriptor>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// How to reach registries.
#[derive(Clone)]
pub(crate) struct ClientOptions {
    pub timeouts: Timeouts,
    /// Further authorities to trust, in PEM.
    pub authorities: Vec<Vec<u8>>,
    /// For pulls on a tenant's behalf: what connects, and the hosts that the operator listed.
    pub egress: Option<(Egress, BTreeSet<String>)>,
}

/// A client, with the proxy that its connections come by.
#[derive(Clone)]
pub(crate) struct RegistryClient {
    client: Client,
    proxy: Option<Arc<EgressProxy>>,
}

impl RegistryClient {
    fn trouble(&self) -> Option<Trouble> {
        self.proxy.as_ref()?.trouble()
    }

    /// The text of an error, or why the connection behind it was not made.
    fn explain(&self, text: String) -> String {
        match self.trouble() {
            Some(Trouble::Refused(message) | Trouble::Failed(message)) => message,
            None => text,
        }
    }
}

async fn client(
    scheme: Scheme,
    insecure: bool,
    options: &ClientOptions,
) -> Result<RegistryClient, SourceError> {
    kinglet_process::tls::install_provider();
    let proxy = match options.egress.clone() {
        Some((egress, listed)) => Some(Arc::new(
            EgressProxy::start(egress, listed)
                .await
                .map_err(SourceError::local)?,
        )),
        None => None,
    };
    let url = proxy.as_ref().map(|proxy| proxy.url().to_owned());
    let mut authorities = Vec::new();
    for pem in &options.authorities {
        let read = kinglet_process::tls::authorities(pem).map_err(|message| {
            SourceError::local(format!("reading the certificate authority: {message}"))
        })?;
        authorities.extend(read.iter().map(|certificate| Certificate {
            encoding: CertificateEncoding::Der,
            data: certificate.to_vec(),
        }));
    }
    // Not `Client::new`, which goes on with defaults, and so without the proxy, when something is wrong.
    let client = Client::try_from(ClientConfig {
        https_proxy: url.clone(),
        http_proxy: url,
        extra_root_certificates: authorities,
        protocol: if scheme == Scheme::Http {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        },
        accept_invalid_certificates: insecure,
        read_timeout: Some(options.timeouts.read),
        connect_timeout: Some(options.timeouts.connect),
        user_agent: concat!("kinglet/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
    .map_err(|error| {
        SourceError::local(format!(
            "preparing to ask the registry: {}",
            describe(&error)
        ))
    })?;
    Ok(RegistryClient { client, proxy })
}

/// A call of a client. Boxed, because an async closure's future is not known to be `Send` for every client.
type ClientFuture<T> = BoxFuture<'static, Result<T, OciDistributionError>>;

/// Sends a call over TLS; an insecure source over plain HTTP first, and over TLS when that is not what it speaks.
async fn request<T>(
    source: &Source,
    options: &ClientOptions,
    call: impl Fn(Client) -> ClientFuture<T>,
) -> Result<(RegistryClient, T), SourceError> {
    let timeouts = options.timeouts;
    // Who names an authority wants its certificates checked.
    let insecure = source.insecure && options.authorities.is_empty();
    let schemes: &[Scheme] = if insecure {
        &[Scheme::Http, Scheme::Https]
    } else {
        &[Scheme::Https]
    };
    // The library asks for a token, for a list and for a manifest, each with the read timeout.
    let timeout = timeouts.connect + timeouts.read;
    let mut refusal = None;
    for &scheme in schemes {
        let client = client(scheme, insecure, options).await?;
        let error = match tokio::time::timeout(timeout, call(client.client.clone())).await {
            Ok(Ok(answer)) => return Ok((client, answer)),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(SourceError::unreachable(format!(
                    "the registry did not answer within {} s",
                    timeout.as_secs_f32()
                )));
            }
        };
        if let OciDistributionError::RequestError(request) = &error
            && request.is_timeout()
        {
            return Err(SourceError::unreachable(format!(
                "the registry did not answer in time: {}",
                describe(&error)
            )));
        }
        let speaks_tls = scheme == Scheme::Http
            && matches!(
                error,
                OciDistributionError::RequestError(_)
                    | OciDistributionError::ServerError { code: 400, .. }
            );
        let answered = !matches!(error, OciDistributionError::RequestError(_));
        let (this, speaks_tls) = match client.trouble() {
            Some(Trouble::Refused(message)) => return Err(SourceError::answered(message)),
            Some(Trouble::Failed(message)) => {
                (SourceError::unreachable(message), scheme == Scheme::Http)
            }
            None => (
                SourceError {
                    message: describe(&error),
                    answered,
                },
                speaks_tls,
            ),
        };
        if !speaks_tls {
            // TLS was only a second guess: what plain HTTP met says more, unless TLS got an answer.
            return Err(refusal.filter(|_| !this.answered).unwrap_or(this));
        }
        refusal = Some(this);
    }
    Err(refusal.unwrap_or_else(|| SourceError::unreachable("nothing was asked".to_owned())))
}

fn auth(name: &ImageName, credentials: &Credentials) -> RegistryAuth {
    credentials
        .find(&name.repository_path())
        .map_or(RegistryAuth::Anonymous, |(user, password)| {
            RegistryAuth::Basic(user.to_owned(), password.to_owned())
        })
}

/// The digest a reference leads to.
pub(crate) async fn digest(
    source: &Source,
    credentials: &Credentials,
    options: &ClientOptions,
) -> Result<String, SourceError> {
    let (wire, auth) = (source.name.wire(), auth(&source.name, credentials));
    let call = move |client: Client| -> ClientFuture<String> {
        let (wire, auth) = (wire.clone(), auth.clone());
        async move { client.fetch_manifest_digest(&wire, &auth).await }.boxed()
    };
    let (_, digest) = request(source, options, call).await?;
    Ok(digest)
}

/// Reads manifest and configuration, and answers with the client that could.
pub(crate) async fn manifest(
    source: &Source,
    credentials: &Credentials,
    options: &ClientOptions,
) -> Result<(RegistryClient, Manifest), SourceError> {
    let (wire, auth) = (source.name.wire(), auth(&source.name, credentials));
    let call = move |client: Client| -> ClientFuture<(OciImageManifest, String, Option<String>)> {
        let (wire, auth) = (wire.clone(), auth.clone());
        async move {
            client
                .pull_image_manifest_and_list_digest(&wire, &auth)
                .await
        }
        .boxed()
    };
    let (client, (manifest, digest, list_digest)) = request(source, options, call).await?;
    if manifest.layers.len() > LAYERS_MAX {
        return Err(SourceError::answered(format!(
            "the image has {} layers, more than {LAYERS_MAX}",
            manifest.layers.len()
        )));
    }
    if let Some(odd) = manifest
        .layers
        .iter()
        .find(|layer| !layer.media_type.contains(".tar") || layer.media_type.contains("encrypted"))
    {
        return Err(SourceError::answered(format!(
            "layer {} has the type {:?}: this is not a container image, or one we cannot read",
            odd.digest, odd.media_type
        )));
    }
    let config = config(&client, &source.name, &manifest.config).await?;
    Ok((
        client,
        Manifest {
            digest: list_digest.unwrap_or(digest),
            config,
            layers: manifest.layers,
        },
    ))
}

async fn config(
    client: &RegistryClient,
    name: &ImageName,
    descriptor: &OciDescriptor,
) -> Result<Vec<u8>, SourceError> {
    let mut stream = client
        .client
        .pull_blob_stream(&name.wire(), descriptor)
        .await
        .map_err(|error| {
            SourceError::answered(format!(
                "the image configuration: {}",
                client.explain(describe(&error))
            ))
        })?
        .stream;
    let mut document = Vec::new();
    while let Some(chunk) = stream.next().await {
        document.extend_from_slice(&chunk.map_err(|error| {
            SourceError::answered(format!("the image configuration: {}", causes(&error)))
        })?);
        if document.len() > CONFIG_BYTES_MAX {
            return Err(SourceError::answered(format!(
                "the image configuration is larger than {CONFIG_BYTES_MAX} bytes"
            )));
        }
    }
    Ok(document)
}

/// Downloads one layer into a file; the library checks its digest on the way.
pub(crate) async fn layer(
    client: &RegistryClient,
    name: &ImageName,
    descriptor: &OciDescriptor,
    file: &Path,
    progress: &Progress,
) -> Result<(), SourceError> {
    let broken = |message: String| {
        SourceError::unreachable(format!(
            "downloading layer {}: {message}",
            descriptor.digest
        ))
    };
    let writing =
        |error: std::io::Error| SourceError::local(format!("writing {}: {error}", file.display()));
    let stream = client
        .client
        .pull_blob_stream(&name.wire(), descriptor)
        .await
        .map_err(|error| broken(client.explain(describe(&error))))?;
    let bytes_total = stream
        .content_length
        .unwrap_or(u64::try_from(descriptor.size).unwrap_or(0));
    progress.report(ProgressEvent::LayerStarted {
        layer: descriptor.digest.clone(),
        bytes_total,
    });
    let mut stream = stream.stream;
    let mut out = tokio::fs::File::create(file).await.map_err(writing)?;
    let mut bytes = 0_u64;
    let mut reported = 0_u64;
    // The manifest says how many bytes there are; more are not what its digest is about.
    let stated = u64::try_from(descriptor.size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(LAYER_BYTES_MAX);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| broken(causes(&error)))?;
        bytes += chunk.len() as u64;
        if bytes > LAYER_BYTES_MAX.min(stated) {
            return Err(broken(format!(
                "it is larger than {} bytes",
                LAYER_BYTES_MAX.min(stated)
            )));
        }
        out.write_all(&chunk).await.map_err(writing)?;
        if bytes - reported >= 1 << 20 {
            reported = bytes;
            progress.report(ProgressEvent::LayerBytes {
                layer: descriptor.digest.clone(),
                bytes,
            });
        }
    }
    out.flush().await.map_err(writing)
}

/// An error with its causes: a transport error's own text is only "error sending request".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A registry's answer in one readable line.
fn describe(error: &OciDistributionError) -> String {
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let lines: Vec<String> = envelope
                .errors
                .iter()
                .map(|error| {
                    if error.message.is_empty() {
                        format!("{:?}", error.code)
                    } else {
                        error.message.clone()
                    }
                })
                .collect();
            if lines.is_empty() {
                "the registry refused without saying message".to_owned()
            } else {
                lines.join(", ")
            }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => "manifest unknown".to_owned(),
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => {
            "not authorized (does the Pod have imagePullSecrets for this registry?)".to_owned()
        }
        OciDistributionError::ServerError { code, message, .. } => {
            format!("the registry answered {code} {message}")
                .trim_end()
                .to_owned()
        }
        other => causes(other),
    }
}
