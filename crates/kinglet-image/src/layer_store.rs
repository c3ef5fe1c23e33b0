//! Layer directories on disk: placed whole, taken away whole, kept while somebody counts on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kinglet_process::Trash;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::builtin::hex;
use crate::layer::{Below, Unpacked};
use crate::{ImageError, layer};

/// The layer directories of one store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LayerStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// LayerStore that an unfinished pull counts on, and how many do.
    pins: Mutex<BTreeMap<String, usize>>,
    scratch_next: AtomicU64,
    /// What is not needed any more; emptied whenever something comes in, by whoever brings it.
    trash: Arc<Trash>,
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
        let (placed, scratch, trash) = (
            root.join("layers"),
            root.join("scratch"),
            root.join("trash"),
        );
        for directory in [&placed, &trash] {
            make_private(directory).map_err(ImageError::store("making", directory))?;
        }
        let layers = Self(Arc::new(Inner {
            root: root.to_owned(),
            pins: Mutex::default(),
            scratch_next: AtomicU64::new(0),
            trash: Trash::open(&trash).map_err(ImageError::store("opening", &trash))?,
        }));
        // Whatever an interrupted pull left cannot make a start fail or slow.
        if let Err(error) = layers.0.trash.discard(&scratch) {
            tracing::warn!(directory = %scratch.display(), %error, "what an interrupted pull left stays behind");
        }
        make_private(&scratch).map_err(ImageError::store("making", &scratch))?;
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
        if !layers.0.trash.is_empty() {
            let trash = Arc::clone(&layers.0.trash);
            #[expect(
                clippy::disallowed_methods,
                reason = "what it does not remove, the next start does"
            )]
            let emptied = std::thread::Builder::new()
                .name("image trash".to_owned())
                .spawn(move || empty(&trash));
            if let Err(error) = emptied {
                tracing::warn!(%error, "what was thrown away stays until the next start");
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
        Ok(Scratch {
            path,
            trash: Arc::clone(&self.0.trash),
        })
    }

    /// Unpacks an archive on top of `below`, checks that it is what `names` say and places it; gives the name under which
    /// it is placed, and its size. Blocks.
    pub(crate) fn unpack(
        &self,
        names: &LayerNames,
        file: &Path,
        below: &Below,
        scratch: &Scratch,
    ) -> Result<(String, u64), ImageError> {
        let root = scratch.path().join("root");
        let failed = |message: String| ImageError::Layer {
            layer: names.id.clone(),
            message,
        };
        std::fs::create_dir(&root).map_err(ImageError::store("making", &root))?;
        let Unpacked {
            diff_id,
            needs_parents,
            bytes,
        } = layer::unpack(file, &root, below).map_err(failed)?;
        if let Some(wanted) = &names.diff_id
            && diff_id.as_ref() != Some(wanted)
        {
            return Err(failed(format!(
                "the image configuration calls it {wanted}, and its content is {}",
                diff_id.as_deref().unwrap_or("damaged at its end")
            )));
        }
        let name = if needs_parents {
            &names.in_chain
        } else {
            &names.alone
        };
        self.place(&root, name)?;
        Ok((name.clone(), bytes))
    }

    /// The name under which a layer is here already.
    pub(crate) fn find(&self, names: &LayerNames) -> Option<String> {
        [&names.alone, &names.in_chain]
            .into_iter()
            .find(|name| self.has(name))
            .cloned()
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
        self.place(&unpacked, layer)
    }

    fn place(&self, unpacked: &Path, layer: &str) -> Result<(), ImageError> {
        // The root of a container must be readable for its user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(unpacked, mode)
            .map_err(ImageError::store("setting the mode of", unpacked))?;
        let target = self.path(layer);
        match std::fs::rename(unpacked, &target) {
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
pub(crate) struct Scratch {
    path: PathBuf,
    trash: Arc<Trash>,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match self.trash.discard(&self.path) {
            Ok(_) => empty(&self.trash),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "scratch folder stays until the next start");
            }
        }
    }
}

fn empty(trash: &Trash) {
    if let Err(error) = trash.empty() {
        tracing::debug!(%error, "what was thrown away stays until the next start");
    }
}

/// Programs in layers may be setuid: nobody but Kinglet's user reaches them by path.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Directory names that one layer of an image may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerNames {
    /// What identifies the layer: its DiffID, or the digest of what was downloaded where the image does not tell.
    pub id: String,
    /// What the uncompressed archive must hash to.
    pub diff_id: Option<String>,
    /// The same on top of anything: shared by all images, in whichever form they were distributed.
    pub alone: String,
    /// Unpacked on top of exactly these layers.
    pub in_chain: String,
}

/// Names for the layers of an image, bottom first. The DiffIDs of its configuration come first, as one layer has many
/// compressed forms.
pub(crate) fn layer_names(
    digests: &[String],
    diff_ids: &[String],
) -> Result<Vec<LayerNames>, String> {
    if !diff_ids.is_empty() && diff_ids.len() != digests.len() {
        return Err(format!(
            "the image has {} layers, and its configuration speaks of {}",
            digests.len(),
            diff_ids.len()
        ));
    }
    let mut chain = String::new();
    let mut names = Vec::with_capacity(digests.len());
    for (position, digest) in digests.iter().enumerate() {
        let diff_id = diff_ids.get(position).cloned();
        let id = diff_id.clone().unwrap_or_else(|| digest.clone());
        // OCI's ChainID.
        chain = if chain.is_empty() {
            id.clone()
        } else {
            format!(
                "sha256:{}",
                hex(&Sha256::digest(format!("{chain} {id}").as_bytes()))
            )
        };
        let alone = directory_name(&id);
        let in_chain = if position == 0 {
            alone.clone()
        } else {
            format!("chain-{}", directory_name(&chain))
        };
        names.push(LayerNames {
            id,
            diff_id,
            alone,
            in_chain,
        });
    }
    Ok(names)
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
