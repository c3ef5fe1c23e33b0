//! The store itself: have an image, resolve a tag, list, import, remove.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::builtin::BuiltinImage;
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, Index, Record};
use crate::registries::{Registries, SAMPLES_HOST, Source};
use crate::{Credentials, ImageError, ImageName, archive, layer, registry};

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
    builtin: Vec<BuiltinImage>,
    index: Mutex<Index>,
    ready: Mutex<HashMap<String, Weak<ReadyImage>>>,
    flights: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pulls: tokio::sync::Semaphore,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("root", &self.0.root).finish_non_exhaustive()
    }
}

impl Images {
    /// Opens (or makes) the store below `root` and throws away what an interrupted pull left.
    pub fn open(root: &Path, registries: Registries, builtin: Vec<BuiltinImage>) -> Result<Self, ImageError> {
        std::fs::create_dir_all(root.join("layers")).map_err(ImageError::store("making", root.join("layers")))?;
        let scratch = root.join("scratch");
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch).map_err(ImageError::store("clearing", &scratch))?;
        }
        std::fs::create_dir_all(&scratch).map_err(ImageError::store("making", &scratch))?;
        let index = Index::load(&root.join("index.json"))?;
        Ok(Self(Arc::new(Inner {
            root: root.to_owned(),
            registries,
            builtin,
            index: Mutex::new(index),
            ready: Mutex::default(),
            flights: Mutex::default(),
            pulls: tokio::sync::Semaphore::new(PULLS_MAX),
        })))
    }

    /// Makes sure that `reference` is unpacked here.
    pub async fn ensure(&self, reference: &str, policy: PullPolicy, credentials: &Credentials) -> Result<Arc<ReadyImage>, ImageError> {
        self.pull(reference, policy, credentials, &Progress::none()).await
    }

    /// [`Images::ensure`], telling how far it is.
    pub async fn pull(&self, reference: &str, policy: PullPolicy, credentials: &Credentials, progress: &Progress) -> Result<Arc<ReadyImage>, ImageError> {
        let name = ImageName::parse(reference)?;
        if policy != PullPolicy::Always
            && let Some(ready) = self.here(&name)
        {
            return Ok(ready);
        }
        let key = name.to_string();
        let flight = Arc::clone(self.0.flights.lock().entry(key.clone()).or_default());
        let turn = flight.lock().await;
        let outcome = self.fetch(&name, policy, credentials, progress).await;
        drop(turn);
        let mut flights = self.0.flights.lock();
        // Two references: the map's and ours. More means that somebody waits for the next turn.
        if Arc::strong_count(&flight) == 2 {
            flights.remove(&key);
        }
        drop(flights);
        if let Ok(ready) = &outcome {
            progress.tell(ProgressEvent::Done { digest: ready.digest.clone() });
        }
        outcome
    }

    async fn fetch(&self, name: &ImageName, policy: PullPolicy, credentials: &Credentials, progress: &Progress) -> Result<Arc<ReadyImage>, ImageError> {
        if policy != PullPolicy::Always
            && let Some(ready) = self.here(name)
        {
            return Ok(ready);
        }
        let sources = self.0.registries.sources(name)?;
        if let Some(sample) = sources.iter().find(|source| source.name.registry == SAMPLES_HOST) {
            return self.sample(name, &sample.name).await;
        }
        if policy == PullPolicy::Never {
            return self.here(name).ok_or_else(|| ImageError::NeverPulled { reference: name.to_string() });
        }
        let mut attempts = Vec::new();
        let permit = self.0.pulls.acquire().await.expect("the semaphore is never closed");
        for source in sources {
            progress.tell(ProgressEvent::Asking { source: source.name.to_string() });
            match self.from_registry(name, &source, credentials, progress).await {
                Ok(ready) => return Ok(ready),
                Err(why) => {
                    progress.tell(ProgressEvent::SourceFailed { source: source.name.to_string(), why: why.clone() });
                    attempts.push(format!("{}: {why}", source.name));
                }
            }
        }
        drop(permit);
        // An imported image with pull policy Always and no registry behind it still works.
        if let Some(ready) = self.here(name).filter(|_| policy == PullPolicy::Always) {
            tracing::warn!(image = %name, why = attempts.join("; "), "registry does not answer, using the image that is here");
            return Ok(ready);
        }
        Err(ImageError::Pull { reference: name.to_string(), attempts })
    }

    async fn from_registry(&self, name: &ImageName, source: &Source, credentials: &Credentials, progress: &Progress) -> Result<Arc<ReadyImage>, String> {
        let (client, manifest) = registry::manifest(source, credentials).await?;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        let mut bytes = 0;
        for descriptor in &manifest.layers {
            let directory = layer_directory(&descriptor.digest);
            bytes += u64::try_from(descriptor.size).unwrap_or(0);
            if !self.layer_path(&directory).is_dir() {
                let scratch = Scratch::new(&self.0.root).map_err(|error| error.to_string())?;
                let file = scratch.path().join("layer");
                registry::layer(&client, &source.name, descriptor, &file, progress).await?;
                let images = self.clone();
                let target = directory.clone();
                run_blocking(move || images.place(&target, &file, scratch)).await.map_err(|error| error.to_string())?;
            }
            progress.tell(ProgressEvent::LayerDone { layer: descriptor.digest.clone() });
            layers.push(directory);
        }
        layers.reverse();
        let config = ImageConfig::from_document(manifest.config.as_bytes())?;
        self.record(&[name.to_string()], &manifest.digest, Record { layers, config, bytes }).map_err(|error| error.to_string())?;
        self.here(name).ok_or_else(|| "the image vanished while it was unpacked".to_owned())
    }

    /// Unpacks `file` and renames it into place; losing a race against the same layer is fine.
    fn place(&self, directory: &str, file: &Path, scratch: Scratch) -> Result<(), ImageError> {
        let unpacked = scratch.path().join("root");
        std::fs::create_dir(&unpacked).map_err(ImageError::store("making", &unpacked))?;
        layer::unpack(file, &unpacked).map_err(|why| ImageError::Layer { layer: directory.to_owned(), why })?;
        self.settle(&unpacked, directory)
    }

    fn settle(&self, unpacked: &Path, directory: &str) -> Result<(), ImageError> {
        let target = self.layer_path(directory);
        // The root of a container must be readable for its user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(unpacked, mode).map_err(ImageError::store("setting the mode of", unpacked))?;
        match std::fs::rename(unpacked, &target) {
            Ok(()) => Ok(()),
            Err(_) if target.is_dir() => Ok(()),
            Err(error) => Err(ImageError::store("placing", target)(error)),
        }
    }

    async fn sample(&self, name: &ImageName, sample: &ImageName) -> Result<Arc<ReadyImage>, ImageError> {
        let Some(image) = self.0.builtin.iter().find(|image| image.name == sample.repository).cloned() else {
            let known = self.0.builtin.iter().map(|image| format!("{SAMPLES_HOST}/{}", image.name)).collect();
            return Err(ImageError::NoSample { reference: sample.to_string(), known });
        };
        let layer = image.layer();
        if !self.layer_path(&layer).is_dir() {
            let (images, image, layer) = (self.clone(), image.clone(), layer.clone());
            run_blocking(move || {
                let scratch = Scratch::new(&images.0.root)?;
                let unpacked = scratch.path().join("root");
                std::fs::create_dir(&unpacked).and_then(|()| image.write(&unpacked)).map_err(ImageError::store("writing sample", &unpacked))?;
                images.settle(&unpacked, &layer)
            })
            .await?;
        }
        let digest = image.digest(&layer);
        let mut names = vec![name.to_string()];
        if name != sample {
            names.push(sample.to_string());
        }
        self.record(&names, &digest, image.record(layer))?;
        self.here(name).ok_or_else(|| ImageError::NotHere { reference: name.to_string() })
    }

    fn record(&self, names: &[String], digest: &str, record: Record) -> Result<(), ImageError> {
        let mut index = self.0.index.lock();
        let mut next = index.clone();
        next.images.insert(digest.to_owned(), record);
        for name in names {
            next.names.insert(name.clone(), digest.to_owned());
        }
        if *index != next {
            next.save(&self.0.root.join("index.json"))?;
            *index = next;
        }
        Ok(())
    }

    /// The image, if it is complete here.
    fn here(&self, name: &ImageName) -> Option<Arc<ReadyImage>> {
        let index = self.0.index.lock();
        let digest = match &name.digest {
            // A digest resolved from a tag names the image whatever repository it came from.
            Some(digest) => digest.clone(),
            None => index.names.get(&name.to_string())?.clone(),
        };
        let record = index.images.get(&digest)?.clone();
        drop(index);
        let key = format!("{name} {digest}");
        let mut ready = self.0.ready.lock();
        if let Some(image) = ready.get(&key).and_then(Weak::upgrade) {
            return Some(image);
        }
        let layers: Vec<PathBuf> = record.layers.iter().map(|layer| self.layer_path(layer)).collect();
        if !layers.iter().all(|layer| layer.is_dir()) {
            return None;
        }
        let image = Arc::new(ReadyImage { reference: name.to_string(), digest, layers, config: record.config });
        ready.retain(|_, held| held.strong_count() > 0);
        ready.insert(key, Arc::downgrade(&image));
        Some(image)
    }

    /// What a tag means now, as `repository@digest`: the local store first, so that an imported image works by its tag.
    pub async fn resolve_digest(&self, reference: &str, credentials: &Credentials) -> Result<String, ImageError> {
        let name = ImageName::parse(reference)?;
        if name.digest.is_some() {
            return Ok(reference.to_owned());
        }
        let sources = self.0.registries.sources(&name)?;
        if sources.iter().any(|source| source.name.registry == SAMPLES_HOST) {
            let ready = self.ensure(reference, PullPolicy::IfNotPresent, credentials).await?;
            return Ok(name.resolved(&ready.digest));
        }
        if let Some(ready) = self.here(&name) {
            return Ok(name.resolved(&ready.digest));
        }
        let mut attempts = Vec::new();
        for source in sources {
            match registry::digest(&source, credentials).await {
                Ok(digest) => return Ok(name.resolved(&digest)),
                Err(why) => attempts.push(format!("{}: {why}", source.name)),
            }
        }
        Err(ImageError::Pull { reference: name.to_string(), attempts })
    }

    /// Everything that can be started without a network.
    pub fn list(&self) -> Vec<ImageSummary> {
        let index = self.0.index.lock();
        let mut rows: Vec<ImageSummary> = index
            .names
            .iter()
            .filter(|(name, _)| !name.starts_with(SAMPLES_HOST))
            .filter_map(|(name, digest)| {
                let record = index.images.get(digest)?;
                let built_in = record.layers.iter().any(|layer| layer.starts_with("sample-"));
                Some(ImageSummary { reference: name.clone(), digest: digest.clone(), bytes: record.bytes, built_in })
            })
            .collect();
        drop(index);
        rows.extend(self.0.builtin.iter().map(|image| {
            let layer = image.layer();
            let digest = image.digest(&layer);
            ImageSummary { reference: format!("{SAMPLES_HOST}/{}", image.name), digest, bytes: image.record(layer).bytes, built_in: true }
        }));
        rows
    }

    /// Imports every image of an archive; `name` is given to the first (and is needed where the archive names none).
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageSummary>, ImageError> {
        let name = name.map(ImageName::parse).transpose()?;
        let (images, path) = (self.clone(), path.to_owned());
        run_blocking(move || images.import_blocking(&path, name)).await
    }

    fn import_blocking(&self, path: &Path, name: Option<ImageName>) -> Result<Vec<ImageSummary>, ImageError> {
        let members = Scratch::new(&self.0.root)?;
        let mut rows = Vec::new();
        for (position, opened) in archive::open(path, members.path())?.into_iter().enumerate() {
            let mut names: Vec<ImageName> = opened.names.iter().map(|name| ImageName::parse(name)).collect::<Result<_, _>>()?;
            if position == 0 && let Some(name) = &name {
                names = vec![name.clone()];
            }
            if names.is_empty() {
                return Err(ImageError::Archive { path: path.to_owned(), why: "it names no image; say which name it shall have: kinglet image import FILE NAME".to_owned() });
            }
            let (mut layers, mut bytes) = (Vec::new(), 0);
            for (digest, file) in &opened.layers {
                let directory = layer_directory(digest);
                bytes += std::fs::metadata(file).map(|meta| meta.len()).unwrap_or(0);
                if !self.layer_path(&directory).is_dir() {
                    self.place(&directory, file, Scratch::new(&self.0.root)?)?;
                }
                layers.push(directory);
            }
            layers.reverse();
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            self.record(&names, &opened.digest, Record { layers, config: opened.config, bytes })?;
            rows.extend(names.into_iter().map(|reference| ImageSummary { reference, digest: opened.digest.clone(), bytes, built_in: false }));
        }
        Ok(rows)
    }

    /// Forgets a reference, and the layers that nothing else needs.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let name = ImageName::parse(reference)?;
        let images = self.clone();
        run_blocking(move || images.remove_blocking(&name)).await
    }

    fn remove_blocking(&self, name: &ImageName) -> Result<(), ImageError> {
        let mut index = self.0.index.lock();
        let key = name.to_string();
        let digest = match &name.digest {
            Some(digest) => digest.clone(),
            None => index.names.get(&key).cloned().ok_or_else(|| ImageError::NotHere { reference: key.clone() })?,
        };
        let used = self.0.ready.lock().values().filter_map(Weak::upgrade).any(|image| image.digest == digest);
        if used {
            return Err(ImageError::InUse { reference: key });
        }
        let mut next = index.clone();
        if name.digest.is_some() {
            next.names.retain(|_, held| *held != digest);
        } else {
            next.names.remove(&key);
        }
        next.drop_unnamed();
        next.save(&self.0.root.join("index.json"))?;
        let needed: std::collections::BTreeSet<&String> = next.images.values().flat_map(|record| &record.layers).collect();
        let gone: Vec<String> = index.images.values().flat_map(|record| &record.layers).filter(|layer| !needed.contains(layer)).cloned().collect();
        *index = next;
        drop(index);
        for layer in gone {
            let path = self.layer_path(&layer);
            if path.is_dir() {
                std::fs::remove_dir_all(&path).map_err(ImageError::store("removing", &path))?;
            }
        }
        Ok(())
    }

    fn layer_path(&self, directory: &str) -> PathBuf {
        self.0.root.join("layers").join(directory)
    }
}

/// `sha256:abc` as a directory name without a colon, which overlayfs takes for a separator.
fn layer_directory(digest: &str) -> String {
    digest.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ImageError> + Send + 'static) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ImageError::Shared(format!("image work stopped: {error}"))),
    }
}

/// A folder that goes away with its guard.
struct Scratch(PathBuf);

impl Scratch {
    fn new(root: &Path) -> Result<Self, ImageError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = root.join("scratch").join(number.to_string());
        std::fs::create_dir_all(&path).map_err(ImageError::store("making", &path))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "scratch folder stays until the next start");
        }
    }
}
