//! What the store remembers of each image: a small JSON index beside the layer directories.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ImageError;

/// What an image says about starting it (OCI image configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `User`: name or id, optionally `:group`.
    pub user: String,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
}

impl ImageConfig {
    /// Takes what we use from an OCI or docker image configuration document.
    pub fn from_document(document: &[u8]) -> Result<Self, String> {
        let parsed = oci_spec::image::ImageConfiguration::from_reader(document).map_err(|error| error.to_string())?;
        let Some(config) = parsed.config() else { return Ok(Self::default()) };
        Ok(Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone(),
        })
    }
}

/// One image, by manifest digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Layer directory names, topmost first.
    pub layers: Vec<String>,
    /// How to start it.
    pub config: ImageConfig,
    /// Unpacked or compressed size as known, for listing.
    pub bytes: u64,
}

/// The whole index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Index {
    /// Reference (as [`crate::ImageName`] prints it) -> manifest digest.
    pub names: BTreeMap<String, String>,
    /// Manifest digest -> image.
    pub images: BTreeMap<String, Record>,
}

impl Index {
    /// Reads the index; an absent one is empty, a damaged one an error.
    pub fn load(path: &Path) -> Result<Self, ImageError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ImageError::Store {
                action: "parsing the image index (remove it to start with no images)",
                path: path.to_owned(),
                source: std::io::Error::other(error),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ImageError::store("reading", path)(error)),
        }
    }

    /// Replaces the file in one step, synced.
    pub fn save(&self, path: &Path) -> Result<(), ImageError> {
        let temporary = path.with_extension("new");
        let bytes = serde_json::to_vec_pretty(self).expect("an index of strings serializes");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(ImageError::store("writing", path))
    }

    /// Forgets images that no name leads to.
    pub fn drop_unnamed(&mut self) {
        let named: std::collections::BTreeSet<&String> = self.names.values().collect();
        self.images.retain(|digest, _| named.contains(digest));
    }
}
