//! What `status`, `image`, `down` say to a running Kinglet through the socket in its data directory.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use kinglet_image::{ImageSummary, ProgressEvent};
use serde::{Deserialize, Serialize};

/// Answers are small; a pull's lines are read one by one.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Written to `--ready-file` and part of the status.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Kubernetes API.
    pub api_url: String,
    /// Gateway, plain HTTP.
    pub http_url: Option<String>,
    /// Gateway, HTTPS.
    pub https_url: Option<String>,
    /// Certificate of the authority that signs for hosts of this machine, once something has asked for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_ca: Option<String>,
    /// Image registry.
    pub registry: Option<String>,
    /// Default domain.
    pub domain: String,
    /// Administrator's kubeconfig.
    pub kubeconfig: String,
    /// The process.
    pub pid: u32,
}

/// One part and how it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Which part.
    pub part: String,
    /// Works.
    pub healthy: bool,
    /// In words.
    pub detail: String,
}

/// What the last stop of an instance had to cut off: [`crate::location::stop_report`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopReport {
    /// The process that was stopped.
    pub pid: u32,
    /// Requests that were still under way, by the backend's namespace and name.
    pub cut: BTreeMap<String, u32>,
    /// Seconds that they were given.
    pub after_seconds: u64,
}

impl StopReport {
    /// One line for a person; `None` when nothing was cut.
    pub fn line(&self) -> Option<String> {
        if self.cut.is_empty() {
            return None;
        }
        let all: Vec<String> = self
            .cut
            .iter()
            .map(|(backend, requests)| format!("{backend} ({requests})"))
            .collect();
        Some(format!(
            "Requests that were still under way after {} s were cut: {}",
            self.after_seconds,
            all.join(", ")
        ))
    }
}

/// `GET /status`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Where it serves.
    pub addresses: Addresses,
    /// Data directory.
    pub data: String,
    /// What it was started with, flag by flag.
    #[serde(default)]
    pub flags: BTreeMap<String, String>,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Its parts.
    pub health: Vec<Health>,
    /// Knative Services: all, and ready ones.
    pub services: u64,
    /// Of them ready.
    pub services_ready: u64,
    /// Pods: all.
    pub pods: u64,
    /// Of them ready.
    pub pods_ready: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Recent cold starts, newest last.
    pub cold_starts: Vec<serde_json::Value>,
    /// What the objects of each kind hold.
    #[serde(default)]
    pub memory: Vec<KindMemory>,
}

/// What the cached objects of one kind hold in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindMemory {
    /// Path of the collection.
    pub path: String,
    /// How many objects.
    pub objects: u64,
    /// Bytes of their JSON, which the store and the caches share.
    pub json_bytes: u64,
    /// Bytes of what is kept beside it to find them.
    pub head_bytes: u64,
    /// How many have been read as structs of late.
    pub typed: u64,
    /// Bytes of the JSON of those; the structs are some times as large.
    pub typed_json_bytes: u64,
}

/// A line of the answer to `POST /images/pull`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PullLine {
    /// How far it is.
    Progress(ProgressEvent),
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
}

/// `POST /images/import`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Absolute path.
    pub path: std::path::PathBuf,
    /// Name for the image.
    pub name: Option<String>,
}

/// `POST /images/remove`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRequest {
    /// Reference.
    pub image: String,
}

/// `POST /images/pull`
#[derive(Clone, Serialize, Deserialize)]
pub struct PullRequest {
    /// Reference.
    pub image: String,
    /// Credentials for its registry, as a `config.json` of docker.
    #[serde(default)]
    pub docker_config: Option<serde_json::Value>,
    /// Certificate authority of its registry, in PEM.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

/// `GET /images`
pub type ImageList = Vec<ImageSummary>;

/// An answer that says why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence.
    pub error: String,
}

/// Sends one request and reads the whole JSON answer.
pub async fn call<T: serde::de::DeserializeOwned>(
    socket: &Path,
    method: http::Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    let answer = send(socket, method, path, body).await?;
    let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?
        .to_bytes();
    serde_json::from_slice(&bytes).context("reading the answer of the running Kinglet")
}

/// The sentence for whatever needs a running Kinglet.
pub(crate) fn not_running(data: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "Kinglet is not running with data directory {} (start it with `kinglet up`, or name another one with --data)",
        data.display()
    )
}

/// Whether a Kinglet listens on its control socket.
pub(crate) async fn is_running(data: &Path) -> bool {
    tokio::net::UnixStream::connect(crate::location::control_socket(data))
        .await
        .is_ok()
}

/// Sends one request; a refusal becomes an error.
pub async fn send(
    socket: &Path,
    method: http::Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
    let data = socket.parent().unwrap_or(socket);
    let stream = match tokio::net::UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!(
                "not allowed to open {}: run this as the user that started Kinglet",
                socket.display()
            )
        }
        Err(_) => return Err(not_running(data)),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("talking to the running Kinglet")?;
    let driver = async move {
        let _ = connection.await;
    };
    // The command ends with its answer; the process does not outlive it.
    drop(tokio::task::spawn(driver));
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "kinglet")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
    let answer = sender
        .send_request(request)
        .await
        .context("talking to the running Kinglet")?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .to_bytes();
    match serde_json::from_slice::<Refusal>(&bytes) {
        Ok(refusal) => bail!("{}", refusal.error),
        Err(_) => bail!(
            "the running Kinglet answered {status}: {}",
            String::from_utf8_lossy(&bytes).trim()
        ),
    }
}
