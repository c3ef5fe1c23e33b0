//! The store itself: have an image, resolve a tag, list, import, remove.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::builtin::BuiltinImage;
use crate::flights::Flights;
use crate::layers::{Layers, directory_name};
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, Index, Record};
use crate::registries::{Registries, SAMPLES_HOST, Source};
use crate::registry::{self, Refusal, Timeouts};
use crate::samples::Samples;
use crate::{Credentials, ImageError, ImageName, archive};

/// Pulls under way at once; each unpacks, which is CPU and disk.
const PULLS_MAX: usize = 4;
/// How long a tag that is here in some version may be asked for before that version is good enough.
const ASK_MAX: Duration = Duration::from_secs(4);

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
    layers: Layers,
    index: Mutex<Index>,
    /// Held by whoever changes the index, from reading it to having it on disk.
    writer: Mutex<()>,
    ready: Mutex<HashMap<String, Weak<ReadyImage>>>,
    pulls: tokio::sync::Semaphore,
    images_under_way: Flights,
    layers_under_way: Flights,
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

    /// [`Images::open`] with another patience for registries.
    pub fn open_with(
        root: &Path,
        registries: Registries,
        builtin: Vec<BuiltinImage>,
        timeouts: Timeouts,
    ) -> Result<Self, ImageError> {
        std::fs::create_dir_all(root).map_err(ImageError::store("making", root))?;
        let index = Index::load(&root.join("index.json"))?;
        let known: BTreeSet<&String> = index
            .images
            .values()
            .flat_map(|record| &record.layers)
            .collect();
        let layers = Layers::open(root, &known)?;
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
            images_under_way: Flights::default(),
            layers_under_way: Flights::default(),
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
        let outcome = Box::pin(self.have(&name, policy, credentials, progress)).await;
        if let Ok(ready) = &outcome {
            progress.tell(ProgressEvent::Done {
                digest: ready.digest.clone(),
            });
        }
        outcome
    }

    async fn have(
        &self,
        name: &ImageName,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        // A digest names its content; nothing newer can be behind it.
        if name.digest.is_some()
            && let Some(ready) = self.here(name)
        {
            return Ok(ready);
        }
        // Before what is here by tag: an older binary may have left another version of the sample.
        if let Some(sample) = self.sample_name(name) {
            return self.sample(name, &sample).await;
        }
        match policy {
            PullPolicy::Never => self.here(name).ok_or_else(|| ImageError::NeverPulled {
                reference: name.to_string(),
            }),
            PullPolicy::IfNotPresent => match self.here(name) {
                Some(ready) => Ok(ready),
                None => self.pull_once(name, policy, credentials, progress).await,
            },
            PullPolicy::Always => self.pull_once(name, policy, credentials, progress).await,
        }
    }

    /// Waits for the same pull of somebody else, or pulls.
    async fn pull_once(
        &self,
        name: &ImageName,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let seat = self.0.images_under_way.seat(&name.to_string());
        let _turn = seat.turn().await;
        if policy != PullPolicy::Always
            && let Some(ready) = self.here(name)
        {
            return Ok(ready);
        }
        if let Some(why) = seat.shared_failure(credentials) {
            return Err(ImageError::Shared(why));
        }
        let outcome = self.pull_from_anywhere(name, credentials, progress).await;
        if let Err(error) = &outcome {
            seat.failed(credentials, error.to_string());
        }
        outcome
    }

    async fn pull_from_anywhere(
        &self,
        name: &ImageName,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let sources = self.0.registries.sources(name)?;
        let (mut attempts, mut answered) = (Vec::new(), false);
        for source in sources {
            progress.tell(ProgressEvent::Asking {
                source: source.name.to_string(),
            });
            match self.pull_from(name, &source, credentials, progress).await {
                Ok(ready) => return Ok(ready),
                Err(Refusal {
                    why,
                    answered: this,
                }) => {
                    answered |= this;
                    progress.tell(ProgressEvent::SourceFailed {
                        source: source.name.to_string(),
                        why: why.clone(),
                    });
                    attempts.push(format!("{}: {why}", source.name));
                }
            }
        }
        // Pull policy Always with an imported image, or without a network: what is here has to do. A registry that
        // answers with a refusal has the last word about its own images.
        if let Some(ready) = self.here(name).filter(|_| !answered || self.imported(name)) {
            tracing::warn!(image = %name, why = attempts.join("; "), "no registry serves the image, using the one that is here");
            return Ok(ready);
        }
        Err(ImageError::Pull {
            reference: name.to_string(),
            attempts,
        })
    }

    async fn pull_from(
        &self,
        name: &ImageName,
        source: &Source,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, Refusal> {
        let (client, manifest) = registry::manifest(source, credentials, self.0.timeouts).await?;
        let config = ImageConfig::from_document(&manifest.config)
            .map_err(|why| Refusal::answer(format!("the image configuration: {why}")))?;
        let mut directories: Vec<String> = manifest
            .layers
            .iter()
            .map(|layer| directory_name(&layer.digest))
            .collect();
        let pins = self.0.layers.pin(directories.clone());
        // Only now: a registry that hangs must not keep others from their images.
        let _permit = self
            .0
            .pulls
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut bytes = 0;
        for (descriptor, directory) in manifest.layers.iter().zip(&directories) {
            bytes += u64::try_from(descriptor.size).unwrap_or(0);
            // Two images that share a layer wait for one download of it.
            let seat = self.0.layers_under_way.seat(directory);
            let _turn = seat.turn().await;
            if !self.0.layers.has(directory) {
                let scratch = self.0.layers.scratch().map_err(Refusal::ours)?;
                let file = scratch.path().join("layer");
                registry::layer(&client, &source.name, descriptor, &file, progress).await?;
                let (layers, directory) = (self.0.layers.clone(), directory.clone());
                run_blocking(move || layers.unpack(&directory, &file, &scratch))
                    .await
                    .map_err(Refusal::ours)?;
            }
            progress.tell(ProgressEvent::LayerDone {
                layer: descriptor.digest.clone(),
            });
        }
        directories.reverse();
        let record = Record {
            layers: directories,
            config,
            bytes,
        };
        let layers = self.0.layers.clone();
        run_blocking(move || layers.sync())
            .await
            .map_err(Refusal::ours)?;
        self.record(vec![name.to_string()], manifest.digest, record, false)
            .await
            .map_err(Refusal::ours)?;
        drop(pins);
        self.here(name)
            .ok_or_else(|| Refusal::answer("the image vanished while it was unpacked".to_owned()))
    }

    /// The sample that a reference leads to, directly or by a rewrite.
    fn sample_name(&self, name: &ImageName) -> Option<ImageName> {
        let sources = self.0.registries.sources(name).ok()?;
        sources
            .into_iter()
            .map(|source| source.name)
            .find(|name| name.registry == SAMPLES_HOST)
    }

    async fn sample(
        &self,
        name: &ImageName,
        sample: &ImageName,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let Some((image, identity)) = self.0.samples.find(&sample.repository) else {
            let known = self
                .0
                .samples
                .all()
                .map(|(image, _)| format!("{SAMPLES_HOST}/{}", image.name))
                .collect();
            return Err(ImageError::NoSample {
                reference: sample.to_string(),
                known,
            });
        };
        let pins = self.0.layers.pin(vec![identity.layer.clone()]);
        if !self.0.layers.has(&identity.layer) {
            let (layers, image, layer) =
                (self.0.layers.clone(), image.clone(), identity.layer.clone());
            run_blocking(move || {
                let scratch = layers.scratch()?;
                layers.fill(&layer, &scratch, |unpacked| {
                    image
                        .write(unpacked)
                        .map_err(ImageError::store("writing sample", unpacked))
                })
            })
            .await?;
        }
        let names = vec![name.to_string(), sample.to_string()];
        self.record(
            names,
            identity.digest.clone(),
            image.record(identity.layer.clone()),
            false,
        )
        .await?;
        drop(pins);
        self.here(name).ok_or_else(|| ImageError::NotHere {
            reference: name.to_string(),
        })
    }

    /// Writes down what `names` mean, unless that is known.
    async fn record(
        &self,
        names: Vec<String>,
        digest: String,
        record: Record,
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
        record: &Record,
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
    fn here(&self, name: &ImageName) -> Option<Arc<ReadyImage>> {
        let index = self.0.index.lock();
        let (digest, record) = index.find(name)?;
        let key = format!("{name} {digest}");
        let mut ready = self.0.ready.lock();
        if let Some(image) = ready.get(&key).and_then(Weak::upgrade) {
            return Some(image);
        }
        let layers: Vec<PathBuf> = record
            .layers
            .iter()
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

    /// What a tag means now, as `repository@digest`. An imported image is meant by its tag; for others the registry
    /// is asked, and what is here has to do when it does not answer.
    pub async fn resolve_digest(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<String, ImageError> {
        let name = ImageName::parse(reference)?;
        if name.digest.is_some() {
            return Ok(reference.to_owned());
        }
        if let Some(sample) = self.sample_name(&name) {
            return Ok(name.resolved(&self.sample(&name, &sample).await?.digest));
        }
        let here = self.here(&name).map(|ready| name.resolved(&ready.digest));
        match here {
            Some(here) if self.imported(&name) => Ok(here),
            Some(here) => {
                match tokio::time::timeout(ASK_MAX, self.ask_digest(&name, credentials)).await {
                    Ok(Ok(digest)) => Ok(name.resolved(&digest)),
                    Ok(Err(_)) | Err(_) => Ok(here),
                }
            }
            None => Ok(name.resolved(&self.ask_digest(&name, credentials).await?)),
        }
    }

    async fn ask_digest(
        &self,
        name: &ImageName,
        credentials: &Credentials,
    ) -> Result<String, ImageError> {
        let mut attempts = Vec::new();
        for source in self.0.registries.sources(name)? {
            match Box::pin(registry::digest(&source, credentials, self.0.timeouts)).await {
                Ok(digest) => return Ok(digest),
                Err(refusal) => attempts.push(format!("{}: {}", source.name, refusal.why)),
            }
        }
        Err(ImageError::Resolve {
            reference: name.to_string(),
            attempts,
        })
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

    /// Imports every image of an archive; `name` is given to the first (and is needed where the archive names none).
    pub async fn import(
        &self,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let name = name.map(ImageName::parse).transpose()?;
        if let Some(name) = &name {
            let why = match name {
                _ if name.digest.is_some() => {
                    Some("an imported image is named by a tag; its digest follows from its content")
                }
                _ if name.registry == SAMPLES_HOST => {
                    Some("the samples lie inside the binary and cannot be replaced")
                }
                _ => None,
            };
            if let Some(why) = why {
                return Err(ImageError::InvalidName {
                    reference: name.to_string(),
                    why: why.to_owned(),
                });
            }
        }
        let (images, path) = (self.clone(), path.to_owned());
        run_blocking(move || images.import_blocking(&path, name.as_ref())).await
    }

    fn import_blocking(
        &self,
        path: &Path,
        name: Option<&ImageName>,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let members = self.0.layers.scratch()?;
        let mut images = Vec::new();
        // All of the archive is understood before any of it is recorded.
        for (position, opened) in archive::open(path, members.path())?.into_iter().enumerate() {
            let names: Vec<ImageName> = match name {
                Some(name) if position == 0 => vec![name.clone()],
                _ => opened
                    .names
                    .iter()
                    .map(|name| ImageName::parse(name))
                    .collect::<Result<_, _>>()?,
            };
            if names.is_empty() {
                let why = "it names no image; say which name it shall have: kinglet image import FILE NAME".to_owned();
                return Err(ImageError::Archive {
                    path: path.to_owned(),
                    why,
                });
            }
            images.push((names, opened));
        }
        let mut rows = Vec::new();
        for (names, opened) in images {
            let mut directories: Vec<String> = opened
                .layers
                .iter()
                .map(|(digest, _)| directory_name(digest))
                .collect();
            let pins = self.0.layers.pin(directories.clone());
            let mut bytes = 0;
            for ((_, file), directory) in opened.layers.iter().zip(&directories) {
                bytes += std::fs::metadata(file).map(|meta| meta.len()).unwrap_or(0);
                if !self.0.layers.has(directory) {
                    self.0
                        .layers
                        .unpack(directory, file, &self.0.layers.scratch()?)?;
                }
            }
            self.0.layers.sync()?;
            directories.reverse();
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            self.record_blocking(
                &names,
                &opened.digest,
                &Record {
                    layers: directories,
                    config: opened.config,
                    bytes,
                },
                true,
            )?;
            drop(pins);
            rows.extend(names.into_iter().map(|reference| ImageSummary {
                reference,
                digest: opened.digest.clone(),
                bytes,
                built_in: false,
            }));
        }
        Ok(rows)
    }

    /// Forgets a reference, and the layers that nothing else needs.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let name = ImageName::parse(reference)?;
        if name.registry == SAMPLES_HOST {
            return Err(ImageError::BuiltIn {
                reference: name.to_string(),
            });
        }
        let images = self.clone();
        run_blocking(move || images.remove_blocking(&name)).await
    }

    fn remove_blocking(&self, name: &ImageName) -> Result<(), ImageError> {
        let _writer = self.0.writer.lock();
        let mut index = self.0.index.lock();
        let before = index.clone();
        let mut next = before.clone();
        let forgotten = next.remove(name).ok_or_else(|| ImageError::NotHere {
            reference: name.to_string(),
        })?;
        let used = |digest: &String| {
            self.0
                .ready
                .lock()
                .values()
                .filter_map(Weak::upgrade)
                .any(|image| image.digest == *digest)
        };
        if forgotten.as_ref().is_some_and(used) {
            return Err(ImageError::InUse {
                reference: name.to_string(),
            });
        }
        // From here nobody is given the image any more.
        *index = next.clone();
        drop(index);
        if let Err(error) = next.save(&self.0.root.join("index.json")) {
            *self.0.index.lock() = before;
            return Err(error);
        }
        let needed: BTreeSet<&String> = next
            .images
            .values()
            .flat_map(|record| &record.layers)
            .collect();
        for layer in before
            .images
            .values()
            .flat_map(|record| &record.layers)
            .filter(|layer| !needed.contains(layer))
        {
            self.0.layers.retire(layer)?;
        }
        Ok(())
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
