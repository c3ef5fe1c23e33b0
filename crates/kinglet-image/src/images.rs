//! The store itself: which images are here, by name and digest.

mod digest;
mod import;
mod pull;
mod remove;
mod sample;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use kinglet_process::Egress;
use kinglet_process::egress::is_own_address;
use parking_lot::Mutex;

use crate::builtin::BuiltinImage;
use crate::layer::Cancel;
use crate::layer_store::{LayerNames, LayerStore};
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, ImageIndex, ImageRecord};
use crate::registries::{Registries, SAMPLES_HOST};
use crate::registry::{ClientOptions, Timeouts};
use crate::samples::Samples;
use crate::singleflight::SingleFlight;
use crate::{Credentials, ImageError, ImageName};

/// Pulls under way at once; each unpacks, which is CPU and disk.
const PULLS_MAX: usize = 4;
/// Imports under way at once.
const IMPORTS_MAX: usize = 2;
/// Unpacked bytes of all layers of one image: twice what one layer may have.
const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// On whose behalf an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requester {
    /// A Pod or Revision, which anybody may have written: registries on this machine are reached only where registries.conf
    /// lists them, and an image that came with credentials is used only with credentials that pull it.
    #[default]
    Tenant,
    /// The operator of this machine: every registry is reached, and what was pulled is everybody's.
    Operator,
}

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// For registries that want them.
    pub credentials: Credentials,
    /// Further authorities to trust, each a PEM file's text. With one, the registry is asked over TLS only, and its
    /// certificate is checked, wherever it is.
    pub authorities: Vec<Vec<u8>>,
    /// On whose behalf.
    pub requester: Requester,
}

/// How an image came here.
#[derive(Clone, Debug)]
enum Origin {
    /// From an archive: no registry knows better what its names mean.
    Import,
    /// A sample of the binary, or without credentials, or for the operator: everybody's.
    Public,
    /// With the credentials of this hash.
    Private(String),
}

impl Origin {
    fn credentials(&self) -> Option<&str> {
        match self {
            Self::Private(hash) => Some(hash),
            Self::Import | Self::Public => None,
        }
    }
}

/// When to ask the registry (Kubernetes' `imagePullPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time; what is here is used when the digest is still the same.
    Always,
    /// Only when the image is not here.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

/// An image whose layers are unpacked. While it is held, the layers stay.
#[derive(Debug)]
pub struct ReadyImage {
    /// The reference as stored.
    pub reference: String,
    /// Manifest digest.
    pub digest: String,
    /// Overlay lower directories, topmost first.
    pub layers: Vec<PathBuf>,
    /// How to start it.
    pub config: ImageConfig,
}

/// A line of `kinglet image ls`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// The reference.
    pub reference: String,
    /// Manifest digest.
    pub digest: String,
    /// Size as known.
    pub bytes: u64,
    /// Lies inside the binary.
    pub built_in: bool,
}

/// Images of one machine. Cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    root: PathBuf,
    registries: Registries,
    timeouts: Timeouts,
    /// The way of pulls on a tenant's behalf.
    egress: Mutex<Egress>,
    samples: Samples,
    layers: LayerStore,
    index: Mutex<ImageIndex>,
    /// Held by whoever changes the index, from reading it to having it on disk.
    writer: Mutex<()>,
    ready: Mutex<HashMap<String, Weak<ReadyImage>>>,
    pulls: tokio::sync::Semaphore,
    imports: tokio::sync::Semaphore,
    image_pulls: SingleFlight,
    layer_downloads: SingleFlight,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("root", &self.0.root)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens (or makes) the store below `root` and throws away what an interrupted pull left.
    pub fn open(
        root: &Path,
        registries: Registries,
        builtin: Vec<BuiltinImage>,
    ) -> Result<Self, ImageError> {
        Self::open_with(root, registries, builtin, Timeouts::default())
    }

    /// [`Images::open`] with another timeout for registries.
    pub fn open_with(
        root: &Path,
        registries: Registries,
        builtin: Vec<BuiltinImage>,
        timeouts: Timeouts,
    ) -> Result<Self, ImageError> {
        std::fs::create_dir_all(root).map_err(ImageError::store("making", root))?;
        let index = ImageIndex::load(&root.join("index.json"))?;
        let known: BTreeSet<&String> = index
            .images
            .values()
            .flat_map(|record| &record.layers)
            .collect();
        let layers = LayerStore::open(root, &known)?;
        Ok(Self(Arc::new(Inner {
            root: root.to_owned(),
            registries,
            timeouts,
            egress: Mutex::new(own_egress()),
            samples: Samples::new(builtin),
            layers,
            index: Mutex::new(index),
            writer: Mutex::default(),
            ready: Mutex::default(),
            pulls: tokio::sync::Semaphore::new(PULLS_MAX),
            imports: tokio::sync::Semaphore::new(IMPORTS_MAX),
            image_pulls: SingleFlight::default(),
            layer_downloads: SingleFlight::default(),
        })))
    }

    /// From now on pulls on a tenant's behalf leave by this way, as probes and hooks do. Before, this machine's own sockets
    /// are used, with the same judgement of addresses.
    pub fn leave_by(&self, egress: Egress) {
        *self.0.egress.lock() = egress;
    }

    /// Makes sure that `reference` is unpacked here, on behalf of a Pod.
    pub async fn ensure(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let options = PullOptions {
            policy,
            credentials: credentials.clone(),
            ..PullOptions::default()
        };
        self.pull_with(reference, &options, &Progress::none()).await
    }

    /// Pulls for the operator, telling how far it is.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let options = PullOptions {
            policy,
            credentials: credentials.clone(),
            requester: Requester::Operator,
            ..PullOptions::default()
        };
        self.pull_with(reference, &options, progress).await
    }

    /// Makes sure that `reference` is unpacked here, telling how far it is.
    pub async fn pull_with(
        &self,
        reference: &str,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let name = ImageName::parse(reference)?;
        let outcome = Box::pin(self.ensure_name(&name, options, progress)).await;
        if let Ok(ready) = &outcome {
            progress.report(ProgressEvent::Done {
                digest: ready.digest.clone(),
            });
        }
        outcome
    }

    async fn ensure_name(
        &self,
        name: &ImageName,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        // A digest names its content; nothing newer can be behind it.
        if name.digest.is_some()
            && let Some(ready) = self.find_allowed(name, options)
        {
            return Ok(ready);
        }
        // Before what is here by tag: an older binary may have left another version of the sample.
        if let Some(sample) = self.sample_name(name) {
            return self.sample(name, &sample).await;
        }
        match options.policy {
            PullPolicy::Never => match self.find_allowed(name, options) {
                Some(ready) => Ok(ready),
                None if self.find_local(name).is_some() => Err(ImageError::NotAllowed {
                    reference: name.to_string(),
                }),
                None => Err(ImageError::NeverPulled {
                    reference: name.to_string(),
                }),
            },
            PullPolicy::IfNotPresent => match self.find_allowed(name, options) {
                Some(ready) => Ok(ready),
                None => self.pull_once(name, options, progress).await,
            },
            PullPolicy::Always => self.pull_once(name, options, progress).await,
        }
    }

    /// The image, if it is complete here and whoever asks may use it without asking its registry.
    fn find_allowed(&self, name: &ImageName, options: &PullOptions) -> Option<Arc<ReadyImage>> {
        let ready = self.find_local(name)?;
        if options.requester == Requester::Operator {
            return Some(ready);
        }
        let hashes: Vec<String> = self
            .0
            .registries
            .sources(name)
            .unwrap_or_default()
            .iter()
            .filter_map(|source| options.credentials.hash(&source.name.repository_path()))
            .collect();
        let allowed = self.0.index.lock().allows(&ready.digest, &hashes);
        allowed.then_some(ready)
    }

    /// Writes down what `names` mean, unless that is known.
    async fn record(
        &self,
        names: Vec<String>,
        digest: String,
        record: ImageRecord,
        origin: Origin,
    ) -> Result<(), ImageError> {
        let known = {
            let index = self.0.index.lock();
            let mut granted = index.clone();
            granted.grant(&digest, origin.credentials());
            let imported = matches!(origin, Origin::Import);
            granted == *index && index.says(&names, &digest, &record, imported)
        };
        if known {
            return Ok(());
        }
        let images = self.clone();
        run_blocking(move || images.record_blocking(&names, &digest, &record, &origin)).await
    }

    fn record_blocking(
        &self,
        names: &[String],
        digest: &str,
        record: &ImageRecord,
        origin: &Origin,
    ) -> Result<(), ImageError> {
        let _writer = self.0.writer.lock();
        let mut next = self.0.index.lock().clone();
        next.grant(digest, origin.credentials());
        next.add(names, digest, record, matches!(origin, Origin::Import));
        next.save(&self.0.root.join("index.json"))?;
        *self.0.index.lock() = next;
        Ok(())
    }

    /// How registries are reached on behalf of whoever asks.
    fn client_options(&self, options: &PullOptions) -> ClientOptions {
        let tenant = options.requester == Requester::Tenant;
        ClientOptions {
            timeouts: self.0.timeouts,
            authorities: options.authorities.clone(),
            egress: tenant.then(|| (self.0.egress.lock().clone(), self.0.registries.hosts())),
        }
    }

    fn imported(&self, name: &ImageName) -> bool {
        self.0.index.lock().imported.contains(&name.to_string())
    }

    /// The image, if it is complete here. Holding the index meanwhile keeps a removal from coming in between.
    fn find_local(&self, name: &ImageName) -> Option<Arc<ReadyImage>> {
        let index = self.0.index.lock();
        let (digest, record) = index.find(name)?;
        let key = format!("{name} {digest}");
        let mut ready = self.0.ready.lock();
        if let Some(image) = ready.get(&key).and_then(Weak::upgrade) {
            return Some(image);
        }
        // The same layer twice is applied once, at its topmost place: what lies below that is hidden or equal, and
        // overlayfs refuses the same directory twice.
        let mut seen = BTreeSet::new();
        let layers: Vec<PathBuf> = record
            .layers
            .iter()
            .filter(|layer| seen.insert(layer.as_str()))
            .map(|layer| self.0.layers.path(layer))
            .collect();
        if !layers.iter().all(|layer| layer.is_dir()) {
            return None;
        }
        let image = Arc::new(ReadyImage {
            reference: name.to_string(),
            digest: digest.to_owned(),
            layers,
            config: record.config.clone(),
        });
        ready.retain(|_, held| held.strong_count() > 0);
        ready.insert(key, Arc::downgrade(&image));
        Some(image)
    }

    /// Everything that can be started without a network.
    pub fn list(&self) -> Vec<ImageSummary> {
        let index = self.0.index.lock();
        let mut rows: Vec<ImageSummary> = index
            .names
            .iter()
            .filter(|(name, _)| !of_samples(name))
            .filter_map(|(name, digest)| {
                let record = index.images.get(digest)?;
                let built_in = record
                    .layers
                    .iter()
                    .any(|layer| layer.starts_with("sample-"));
                Some(ImageSummary {
                    reference: name.clone(),
                    digest: digest.clone(),
                    bytes: record.bytes,
                    built_in,
                })
            })
            .collect();
        drop(index);
        rows.extend(self.0.samples.all().map(|(image, identity)| ImageSummary {
            reference: format!("{SAMPLES_HOST}/{}", image.name),
            digest: identity.digest.clone(),
            bytes: image.record(identity.layer.clone()).bytes,
            built_in: true,
        }));
        rows
    }
}

/// Connections on a tenant's behalf where no node has given its way out yet: this machine's sockets, but never this machine's
/// addresses.
fn own_egress() -> Egress {
    Egress::new(
        |ipv6| {
            Box::pin(async move {
                let family = if ipv6 {
                    rustix::net::AddressFamily::INET6
                } else {
                    rustix::net::AddressFamily::INET
                };
                let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
                let kind = rustix::net::SocketType::STREAM;
                Ok(rustix::net::socket_with(family, kind, flags, None)?)
            })
        },
        is_own_address,
    )
}

fn of_samples(name: &str) -> bool {
    name.strip_prefix(SAMPLES_HOST)
        .is_some_and(|rest| rest.starts_with('/'))
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ImageError::Shared(format!("image work stopped: {error}"))),
    }
}

/// Work that reads what somebody else made: on a thread of its own, so that a read that hangs holds nobody's stop up, and
/// cancelled when nobody waits for it any more.
async fn run_cancellable<T: Send + 'static>(
    work: impl FnOnce(Cancel) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    struct CancelOnDrop(Cancel);
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let guard = CancelOnDrop(Cancel::default());
    let cancel = guard.0.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever waits is told by the dropped sender"
    )]
    std::thread::Builder::new()
        .name("image".to_owned())
        .spawn(move || {
            let _ = sender.send(work(cancel));
        })
        .map_err(|error| ImageError::Shared(format!("starting image work: {error}")))?;
    let outcome = receiver.await;
    drop(guard);
    outcome.unwrap_or_else(|_| Err(ImageError::Shared("image work stopped".to_owned())))
}

/// Every directory name that the layers may have.
fn all_names(layers: &[LayerNames]) -> Vec<String> {
    layers
        .iter()
        .flat_map(|names| [names.alone.clone(), names.in_chain.clone()])
        .collect()
}

fn take_bytes(left: &mut u64, bytes: u64, layer: &str) -> Result<(), ImageError> {
    *left = left.checked_sub(bytes).ok_or_else(|| ImageError::Layer {
        layer: layer.to_owned(),
        message: format!("with it the image unpacks to more than {IMAGE_BYTES_MAX} bytes"),
    })?;
    Ok(())
}
