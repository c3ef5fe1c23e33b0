//! The store itself: which images are here, by name and digest.

mod digest;
mod import;
mod pull;
mod remove;
mod sample;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::builtin::BuiltinImage;
use crate::layer_store::LayerStore;
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, ImageIndex, ImageRecord};
use crate::registries::{Registries, SAMPLES_HOST};
use crate::registry::Timeouts;
use crate::samples::Samples;
use crate::singleflight::SingleFlight;
use crate::{Credentials, ImageError, ImageName};

/// Pulls under way at once; each unpacks, which is CPU and disk.
const PULLS_MAX: usize = 4;

/// When to ask the registry (Kubernetes' `imagePullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every time; what is here is used when the digest is still the same.
    Always,
    /// Only when the image is not here.
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
    samples: Samples,
    layers: LayerStore,
    index: Mutex<ImageIndex>,
    /// Held by whoever changes the index, from reading it to having it on disk.
    writer: Mutex<()>,
    ready: Mutex<HashMap<String, Weak<ReadyImage>>>,
    pulls: tokio::sync::Semaphore,
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
            samples: Samples::new(builtin),
            layers,
            index: Mutex::new(index),
            writer: Mutex::default(),
            ready: Mutex::default(),
            pulls: tokio::sync::Semaphore::new(PULLS_MAX),
            image_pulls: SingleFlight::default(),
            layer_downloads: SingleFlight::default(),
        })))
    }

    /// Makes sure that `reference` is unpacked here.
    pub async fn ensure(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        self.pull(reference, policy, credentials, &Progress::none())
            .await
    }

    /// [`Images::ensure`], telling how far it is.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let name = ImageName::parse(reference)?;
        let outcome = Box::pin(self.ensure_name(&name, policy, credentials, progress)).await;
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
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        // A digest names its content; nothing newer can be behind it.
        if name.digest.is_some()
            && let Some(ready) = self.find_local(name)
        {
            return Ok(ready);
        }
        // Before what is here by tag: an older binary may have left another version of the sample.
        if let Some(sample) = self.sample_name(name) {
            return self.sample(name, &sample).await;
        }
        match policy {
            PullPolicy::Never => self
                .find_local(name)
                .ok_or_else(|| ImageError::NeverPulled {
                    reference: name.to_string(),
                }),
            PullPolicy::IfNotPresent => match self.find_local(name) {
                Some(ready) => Ok(ready),
                None => self.pull_once(name, policy, credentials, progress).await,
            },
            PullPolicy::Always => self.pull_once(name, policy, credentials, progress).await,
        }
    }

    /// Writes down what `names` mean, unless that is known.
    async fn record(
        &self,
        names: Vec<String>,
        digest: String,
        record: ImageRecord,
        imported: bool,
    ) -> Result<(), ImageError> {
        if self.0.index.lock().says(&names, &digest, &record, imported) {
            return Ok(());
        }
        let images = self.clone();
        run_blocking(move || images.record_blocking(&names, &digest, &record, imported)).await
    }

    fn record_blocking(
        &self,
        names: &[String],
        digest: &str,
        record: &ImageRecord,
        imported: bool,
    ) -> Result<(), ImageError> {
        let _writer = self.0.writer.lock();
        let mut next = self.0.index.lock().clone();
        next.add(names, digest, record, imported);
        next.save(&self.0.root.join("index.json"))?;
        *self.0.index.lock() = next;
        Ok(())
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
