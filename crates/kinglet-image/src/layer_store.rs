//! Layer directories on disk: placed whole, taken away whole, kept while somebody counts on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{ImageError, layer};

/// The layer directories of one store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LayerStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// LayerStore that an unfinished pull counts on, and how many do.
    pins: Mutex<BTreeMap<String, usize>>,
    scratch_next: AtomicU64,
}

/// Keeps layers from being removed until the image that needs them is recorded.
pub(crate) struct Pins {
    layers: LayerStore,
    names: Vec<String>,
}

impl LayerStore {
    /// Opens (or makes) the directories below `root`; throws away what an interrupted pull left, that is whatever
    /// `known` does not name.
    pub(crate) fn open(root: &Path, known: &BTreeSet<&String>) -> Result<Self, ImageError> {
        let layers = Self(Arc::new(Inner {
            root: root.to_owned(),
            pins: Mutex::default(),
            scratch_next: AtomicU64::new(0),
        }));
        let (placed, scratch) = (root.join("layers"), root.join("scratch"));
        std::fs::create_dir_all(&placed).map_err(ImageError::store("making", &placed))?;
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch).map_err(ImageError::store("clearing", &scratch))?;
        }
        std::fs::create_dir_all(&scratch).map_err(ImageError::store("making", &scratch))?;
        for entry in std::fs::read_dir(&placed).map_err(ImageError::store("listing", &placed))? {
            let name = entry
                .map_err(ImageError::store("listing", &placed))?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if !known.contains(&name) {
                layers.remove(&name)?;
            }
        }
        Ok(layers)
    }

    pub(crate) fn path(&self, layer: &str) -> PathBuf {
        self.0.root.join("layers").join(layer)
    }

    pub(crate) fn has(&self, layer: &str) -> bool {
        self.path(layer).is_dir()
    }

    /// Pins layers before they are looked for.
    pub(crate) fn pin(&self, names: Vec<String>) -> Pins {
        let mut pins = self.0.pins.lock();
        for name in &names {
            *pins.entry(name.clone()).or_default() += 1;
        }
        drop(pins);
        Pins {
            layers: self.clone(),
            names,
        }
    }

    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        let number = self.0.scratch_next.fetch_add(1, Ordering::Relaxed);
        let path = self.0.root.join("scratch").join(number.to_string());
        std::fs::create_dir_all(&path).map_err(ImageError::store("making", &path))?;
        Ok(Scratch(path))
    }

    /// Unpacks an archive as `layer`. Blocks.
    pub(crate) fn unpack(
        &self,
        layer: &str,
        file: &Path,
        scratch: &Scratch,
    ) -> Result<(), ImageError> {
        self.fill(layer, scratch, |unpacked| {
            layer::unpack(file, unpacked).map_err(|message| ImageError::Layer {
                layer: layer.to_owned(),
                message,
            })
        })
    }

    /// Has `write` fill a directory that becomes `layer`; losing a race against the same layer is fine. Blocks.
    pub(crate) fn fill(
        &self,
        layer: &str,
        scratch: &Scratch,
        write: impl FnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let unpacked = scratch.path().join("root");
        std::fs::create_dir(&unpacked).map_err(ImageError::store("making", &unpacked))?;
        write(&unpacked)?;
        // The root of a container must be readable for its user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&unpacked, mode)
            .map_err(ImageError::store("setting the mode of", &unpacked))?;
        let target = self.path(layer);
        match std::fs::rename(&unpacked, &target) {
            Ok(()) => Ok(()),
            Err(_) if target.is_dir() => Ok(()),
            Err(error) => Err(ImageError::store("placing", target)(error)),
        }
    }

    /// Brings placed layers to the disk, so that a record never outlives its content when the power fails. Blocks.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        let directory = self.0.root.join("layers");
        let synced = std::fs::File::open(&directory)
            .and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        synced.map_err(ImageError::store("syncing", directory))
    }

    /// Removes a layer unless it is pinned: renamed away first, so that nobody finds half of it. Blocks.
    pub(crate) fn remove(&self, layer: &str) -> Result<(), ImageError> {
        let scratch = self.scratch()?;
        let path = self.path(layer);
        let pins = self.0.pins.lock();
        if pins.contains_key(layer) || !path.exists() {
            return Ok(());
        }
        std::fs::rename(&path, scratch.path().join("gone"))
            .map_err(ImageError::store("removing", &path))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = self.layers.0.pins.lock();
        for name in &self.names {
            if let Some(count) = pins.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(name);
                }
            }
        }
    }
}

/// A folder that goes away with its guard.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
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

/// `sha256:abc` as a directory name without a colon, which overlayfs takes for a separator.
pub(crate) fn directory_name(digest: &str) -> String {
    digest
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect()
}
