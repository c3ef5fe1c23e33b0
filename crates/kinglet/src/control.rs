//! The socket in the data directory: status, images, shutdown.
//!
//! Always: only the user that Kinglet runs as, and root, are answered: by the folder's mode, the socket's mode and the
//! credentials of the peer, whichever of them an administrator may have loosened.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::StatusCode;
use kinglet_cli::control::{
    Addresses, Health, ImageRequest, ImportRequest, KindMemory, PullLine, PullRequest, Refusal,
    Status,
};
use kinglet_image::{
    Credentials, ImageError, Images, Progress, ProgressEvent, PullOptions, PullPolicy, Requester,
};
use kinglet_process::{ComponentHealth, Supervisor, Tasks};
use kinglet_reconcile::Caches;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::waterfall::Waterfalls;

/// Progress lines that may wait for a slow reader; more are left out.
const PROGRESS_QUEUE: usize = 256;

/// What the socket can tell and do.
pub(crate) struct Control {
    pub(crate) addresses: Addresses,
    pub(crate) data: PathBuf,
    pub(crate) images: Images,
    pub(crate) caches: Caches,
    pub(crate) gateway: kinglet_dataplane::Handle,
    pub(crate) store: kinglet_store::Store,
    pub(crate) waterfalls: Waterfalls,
    pub(crate) flags: std::collections::BTreeMap<String, String>,
    pub(crate) started: tokio::time::Instant,
    pub(crate) stop: CancellationToken,
    pub(crate) supervisor: Supervisor,
}

/// Serves until the tasks are cancelled.
pub(crate) fn serve(control: Control, tasks: &Tasks) -> anyhow::Result<()> {
    let path = kinglet_cli::location::control_socket(&control.data);
    // Left by a crash; the data directory's lock says that nobody else listens there.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .map(OwnerOnly)
        .with_context(|| format!("making the control socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .with_context(|| format!("closing {} to others", path.display()))?;
    let router = axum::Router::new()
        .route("/status", get(status))
        .route("/shutdown", post(shutdown))
        .route("/images", get(list))
        .route("/images/pull", post(pull))
        .route("/images/import", post(import))
        .route("/images/remove", post(remove));
    // How the outside tests see what a panic of each component does.
    #[cfg(debug_assertions)]
    let router = router.route("/panic/{component}", post(panic));
    let router = router.with_state(Arc::new(control));
    let token = tasks.token();
    tasks.component("control-socket", async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(token.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the control socket stopped");
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

/// Hangs up on every peer that is neither root nor the user we run as.
struct OwnerOnly(UnixListener);

impl axum::serve::Listener for OwnerOnly {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            let us = kinglet_process::private::effective_user();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == us || peer.uid() == 0 => return (stream, address),
                Ok(peer) => {
                    tracing::warn!(user = peer.uid(), "the control socket is not for this user")
                }
                Err(error) => {
                    tracing::warn!(%error, "who opened the control socket cannot be told")
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

async fn status(State(control): State<Arc<Control>>) -> Json<Status> {
    let services = control
        .caches
        .cache::<kinglet_api::serving::Service>()
        .all();
    let pods = control
        .caches
        .cache::<k8s_openapi::api::core::v1::Pod>()
        .all();
    let pod_ready = kinglet_reconcile::pod::is_ready;
    let broken = control.store.broken();
    let store = Health {
        part: "Store".to_owned(),
        healthy: broken.is_none(),
        detail: broken.unwrap_or_else(|| format!("revision {}", control.store.revision())),
    };
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: control.addresses.clone(),
        data: control.data.display().to_string(),
        flags: control.flags.clone(),
        uptime_seconds: control.started.elapsed().as_secs(),
        resident_bytes: resident_bytes(),
        health: std::iter::once(store)
            .chain(control.supervisor.health().iter().map(health))
            .collect(),
        services: services.len() as u64,
        services_ready: services
            .iter()
            .filter(|service| service_ready(service))
            .count() as u64,
        pods: pods.len() as u64,
        pods_ready: pods.iter().filter(|pod| pod_ready(pod)).count() as u64,
        in_flight: control.gateway.in_flight() as u64,
        cold_starts: control
            .gateway
            .cold_starts()
            .iter()
            .map(|start| control.waterfalls.of(start))
            .collect(),
        memory: control.caches.memory().iter().map(memory).collect(),
    })
}

fn memory(kind: &kinglet_reconcile::KindMemory) -> KindMemory {
    KindMemory {
        path: kind.path.clone(),
        objects: kind.objects as u64,
        json_bytes: kind.raw as u64,
        head_bytes: kind.heads as u64,
        typed: kind.typed as u64,
        typed_json_bytes: kind.typed_raw as u64,
    }
}

fn health(component: &ComponentHealth) -> Health {
    let restarts = match component.restarts {
        0 => String::new(),
        restarts => format!(
            "restarted {restarts} times: {}",
            component.last_fault.as_deref().unwrap_or_default()
        ),
    };
    Health {
        part: component.name.to_owned(),
        healthy: component.running,
        detail: restarts,
    }
}

#[cfg(debug_assertions)]
async fn panic(
    State(control): State<Arc<Control>>,
    axum::extract::Path(component): axum::extract::Path<String>,
) -> StatusCode {
    match control.supervisor.inject_panic(&component) {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    }
}

fn service_ready(service: &kinglet_api::serving::Service) -> bool {
    let value = serde_json::to_value(service).unwrap_or_default();
    value["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap_or(0)
        * 1024
}

async fn shutdown(State(control): State<Arc<Control>>) -> Json<Value> {
    control.stop.cancel();
    Json(json!({}))
}

async fn list(State(control): State<Arc<Control>>) -> Response {
    Json(control.images.list()).into_response()
}

async fn pull(State(control): State<Arc<Control>>, Json(request): Json<PullRequest>) -> Response {
    let mut credentials = Credentials::default();
    if let Some(config) = &request.docker_config
        && let Err(error) = credentials.add_docker_config(config.to_string().as_bytes())
    {
        return refused(format!("reading the credentials: {error}"));
    }
    let options = PullOptions {
        policy: PullPolicy::Always,
        credentials,
        authorities: request.ca_pem.map(String::into_bytes).into_iter().collect(),
        requester: Requester::Operator,
    };
    let (sender, receiver) = tokio::sync::mpsc::channel::<PullLine>(PROGRESS_QUEUE);
    let shown = sender.clone();
    let progress = Progress::new(move |event| {
        let _ = shown.try_send(PullLine::Progress(event));
    });
    let images = control.images.clone();
    let work = async move {
        // The last line must not be left out, however slow the reader is.
        let last = match images.pull_with(&request.image, &options, &progress).await {
            Ok(ready) => PullLine::Progress(ProgressEvent::Done {
                digest: ready.digest.clone(),
            }),
            Err(error) => PullLine::Failed {
                error: error.to_string(),
            },
        };
        let _ = sender.send(last).await;
        None::<Result<bytes::Bytes, std::io::Error>>
    };
    // The work runs beside the lines, inside the answer's own stream: who stops reading stops the pull.
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        let mut text = serde_json::to_vec(&line).ok()?;
        text.push(b'\n');
        Some((Some(Ok(bytes::Bytes::from(text))), receiver))
    });
    let stream = futures_util::stream::select(lines, futures_util::stream::once(work));
    Response::new(Body::from_stream(futures_util::StreamExt::filter_map(
        stream,
        |line| async move { line },
    )))
}

async fn import(
    State(control): State<Arc<Control>>,
    Json(request): Json<ImportRequest>,
) -> Response {
    answer(
        control
            .images
            .import(&request.path, request.name.as_deref())
            .await,
    )
}

async fn remove(
    State(control): State<Arc<Control>>,
    Json(request): Json<ImageRequest>,
) -> Response {
    answer(
        control
            .images
            .remove(&request.image)
            .await
            .map(|()| json!({})),
    )
}

fn answer<T: serde::Serialize>(outcome: Result<T, ImageError>) -> Response {
    match outcome {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let mut text = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                text = format!("{text}: {cause}");
            }
            refused(text)
        }
    }
}

fn refused(error: String) -> Response {
    (StatusCode::BAD_REQUEST, Json(Refusal { error })).into_response()
}
