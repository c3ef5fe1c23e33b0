//! One registry: what a tag means there, and the blobs of an image.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::Client;
use tokio::io::AsyncWriteExt as _;

use crate::progress::{Progress, ProgressEvent};
use crate::registries::Source;
use crate::{Credentials, ImageName};

/// A registry that says nothing for this long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Compressed bytes of one layer.
const LAYER_BYTES_MAX: u64 = 16 << 30;
/// Layers of one image (overlayfs takes 500; docker writes at most 127).
pub(crate) const LAYERS_MAX: usize = 127;

/// What a manifest names.
pub(crate) struct Manifest {
    /// Of the manifest the reference led to (the list's, if it was a list).
    pub digest: String,
    /// Image configuration document.
    pub config: String,
    /// Bottom first, as the manifest has them.
    pub layers: Vec<OciDescriptor>,
}

/// The protocols worth trying, in order.
fn clients(insecure: bool) -> Vec<Client> {
    let config = |protocol, accept_invalid_certificates| ClientConfig {
        protocol,
        accept_invalid_certificates,
        read_timeout: Some(READ_TIMEOUT),
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("kinglet/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    if insecure {
        vec![Client::new(config(ClientProtocol::Http, false)), Client::new(config(ClientProtocol::Https, true))]
    } else {
        vec![Client::new(config(ClientProtocol::Https, false))]
    }
}

fn auth(name: &ImageName, credentials: &Credentials) -> RegistryAuth {
    credentials
        .find(&name.registry)
        .map_or(RegistryAuth::Anonymous, |(user, password)| RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

/// The digest a reference leads to.
pub(crate) async fn digest(source: &Source, credentials: &Credentials) -> Result<String, String> {
    let mut last = String::new();
    for client in clients(source.insecure) {
        match client.fetch_manifest_digest(&source.name.wire(), &auth(&source.name, credentials)).await {
            Ok(digest) => return Ok(digest),
            Err(error) => last = say(&error),
        }
    }
    Err(last)
}

/// Reads manifest and configuration, and answers with the client that could.
pub(crate) async fn manifest(source: &Source, credentials: &Credentials) -> Result<(Client, Manifest), String> {
    let mut last = String::new();
    let wire = source.name.wire();
    let auth = auth(&source.name, credentials);
    for client in clients(source.insecure) {
        match client.pull_manifest_and_config_and_list_digest(&wire, &auth).await {
            Ok((manifest, digest, config, list_digest)) => {
                if manifest.layers.len() > LAYERS_MAX {
                    return Err(format!("the image has {} layers, more than {LAYERS_MAX}", manifest.layers.len()));
                }
                let digest = list_digest.unwrap_or(digest);
                return Ok((client, Manifest { digest, config, layers: manifest.layers }));
            }
            Err(error) => last = say(&error),
        }
    }
    Err(last)
}

/// Downloads one layer into a file; the library checks its digest on the way.
pub(crate) async fn layer(
    client: &Client,
    name: &ImageName,
    descriptor: &OciDescriptor,
    file: &Path,
    progress: &Progress,
) -> Result<(), String> {
    let stream = client.pull_blob_stream(&name.wire(), descriptor).await.map_err(|error| say(&error))?;
    let bytes_total = stream.content_length.unwrap_or(u64::try_from(descriptor.size).unwrap_or(0));
    progress.tell(ProgressEvent::LayerStarted { layer: descriptor.digest.clone(), bytes_total });
    let mut stream = stream.stream;
    let mut out = tokio::fs::File::create(file).await.map_err(|error| format!("writing {}: {error}", file.display()))?;
    let mut bytes = 0_u64;
    let mut told = 0_u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| format!("downloading layer {}: {error}", descriptor.digest))?;
        bytes += chunk.len() as u64;
        if bytes > LAYER_BYTES_MAX {
            return Err(format!("layer {} is larger than {LAYER_BYTES_MAX} bytes", descriptor.digest));
        }
        out.write_all(&chunk).await.map_err(|error| format!("writing {}: {error}", file.display()))?;
        if bytes - told >= 1 << 20 {
            told = bytes;
            progress.tell(ProgressEvent::LayerBytes { layer: descriptor.digest.clone(), bytes });
        }
    }
    out.flush().await.map_err(|error| format!("writing {}: {error}", file.display()))
}

/// A registry's answer in one readable line.
fn say(error: &OciDistributionError) -> String {
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let lines: Vec<String> = envelope
                .errors
                .iter()
                .map(|error| if error.message.is_empty() { format!("{:?}", error.code) } else { error.message.clone() })
                .collect();
            if lines.is_empty() { "the registry refused without saying why".to_owned() } else { lines.join(", ") }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => "manifest unknown".to_owned(),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            "not authorized (does the Pod have imagePullSecrets for this registry?)".to_owned()
        }
        OciDistributionError::ServerError { code, message, .. } => format!("the registry answered {code} {message}").trim_end().to_owned(),
        other => {
            // A transport error's own text is only "error sending request": the causes say which.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
