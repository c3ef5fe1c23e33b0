//! What the store remembers of each image: a small JSON index beside the layer directories.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{ImageError, ImageName};

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
    /// `Volumes`: directories that are writable whatever the root is.
    pub volumes: Vec<String>,
}

/// The part of an OCI or docker image configuration that we use; builders disagree about the rest.
#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    config: Option<ConfigSection>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigSection {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl ImageConfig {
    /// Takes what we use from an OCI or docker image configuration document.
    pub fn from_document(document: &[u8]) -> Result<Self, String> {
        let parsed: ConfigDocument =
            serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let Some(config) = parsed.config else {
            return Ok(Self::default());
        };
        Ok(Self {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: config
                .volumes
                .into_iter()
                .flatten()
                .map(|(path, _)| path)
                .collect(),
        })
    }
}

/// The digests of an image's uncompressed layers, bottom first; empty where the configuration does not tell.
pub(crate) fn diff_ids(document: &[u8]) -> Result<Vec<String>, String> {
    let parsed: ConfigDocument =
        serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let ids = parsed
        .rootfs
        .and_then(|rootfs| rootfs.diff_ids)
        .unwrap_or_default();
    let is_digest = |id: &&String| {
        id.strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match ids.iter().find(|id| !is_digest(id)) {
        Some(odd) => Err(format!("{odd:?} is not a DiffID")),
        None => Ok(ids),
    }
}

/// Who may use an image that is here without asking its registry again (Kubernetes' KEP-2535).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageAccess {
    /// Everybody: it came without credentials, from an archive, or the operator pulled it.
    pub everybody: bool,
    /// Hashes of the credentials that pulled it.
    pub credentials: BTreeSet<String>,
}

/// One image, by manifest digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
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
pub struct ImageIndex {
    /// Reference (as [`crate::ImageName`] prints it) -> manifest digest.
    pub names: BTreeMap<String, String>,
    /// Manifest digest -> image.
    pub images: BTreeMap<String, ImageRecord>,
    /// Names given by an import: no registry knows better what they mean.
    pub imported: BTreeSet<String>,
    /// Manifest digest -> who may use it. An image of before this was written down is everybody's.
    pub access: BTreeMap<String, ImageAccess>,
}

impl ImageIndex {
    /// Reads the index; an absent one is empty, a damaged one an error.
    pub fn load(path: &Path) -> Result<Self, ImageError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ImageError::Store {
                action: "parsing the image index (remove it to start with no images)",
                path: path.to_owned(),
                cause: std::io::Error::other(error),
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
            // Made anew, whatever lies there: a link would lead elsewhere.
            let _ = std::fs::remove_file(&temporary);
            let mut file = std::fs::File::create_new(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            path.parent()
                .map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        };
        write().map_err(ImageError::store("writing", path))
    }

    /// The image that a name leads to. A digest names its image whatever repository it came from; only a sample's may
    /// lead to another one (that of a newer binary).
    pub fn find(&self, name: &ImageName) -> Option<(&str, &ImageRecord)> {
        let direct = name
            .digest
            .as_ref()
            .and_then(|digest| self.images.get_key_value(digest));
        let (digest, record) = direct.or_else(|| {
            self.images
                .get_key_value(self.names.get(&name.to_string())?)
        })?;
        Some((digest, record))
    }

    /// Whether somebody with these hashes of credentials may use an image without asking its registry.
    pub fn allows(&self, digest: &str, credentials: &[String]) -> bool {
        self.access.get(digest).is_none_or(|access| {
            access.everybody
                || credentials
                    .iter()
                    .any(|one| access.credentials.contains(one))
        })
    }

    /// Writes down how an image came: with the credentials of that hash, or (`None`) for everybody.
    pub fn grant(&mut self, digest: &str, credentials: Option<&str>) {
        // An image of before access was written down stays everybody's.
        if self.images.contains_key(digest) && !self.access.contains_key(digest) {
            return;
        }
        let access = self.access.entry(digest.to_owned()).or_default();
        match credentials {
            None => access.everybody = true,
            Some(hash) => {
                access.credentials.insert(hash.to_owned());
            }
        }
    }

    /// Whether adding would change nothing.
    pub fn says(
        &self,
        names: &[String],
        digest: &str,
        record: &ImageRecord,
        imported: bool,
    ) -> bool {
        let named = names.iter().all(|name| {
            self.names.get(name).is_some_and(|held| held == digest)
                && self.imported.contains(name) == imported
        });
        named && self.images.get(digest) == Some(record)
    }

    /// Names an image. What a name meant before stays reachable by its digest: Revisions may run it.
    pub fn add(&mut self, names: &[String], digest: &str, record: &ImageRecord, imported: bool) {
        self.images.insert(digest.to_owned(), record.clone());
        for name in names {
            if imported {
                self.imported.insert(name.clone());
            } else {
                self.imported.remove(name);
            }
            let Some(before) = self
                .names
                .insert(name.clone(), digest.to_owned())
                .filter(|before| before != digest)
            else {
                continue;
            };
            if let Ok(parsed) = ImageName::parse(name)
                && !self.names.values().any(|held| *held == before)
            {
                self.names
                    .insert(format!("{}@{before}", parsed.repository_path()), before);
            }
        }
    }

    /// Forgets a name (every name of the image, for a digest), and the image when that was the last one: `None` when
    /// there is no such name, `Some(None)` when the image stays, else its digest.
    pub fn remove(&mut self, name: &ImageName) -> Option<Option<String>> {
        let digest = self.find(name)?.0.to_owned();
        if name.digest.is_some() {
            self.names.retain(|_, held| *held != digest);
        } else {
            self.names.remove(&name.to_string())?;
        }
        let names = &self.names;
        self.imported.retain(|name| names.contains_key(name));
        if self.names.values().any(|held| *held == digest) {
            return Some(None);
        }
        self.images.remove(&digest);
        self.access.remove(&digest);
        Some(Some(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ImageName {
        ImageName::parse(text).expect(text)
    }

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    #[test]
    fn a_moved_tag_leaves_its_former_image_reachable() {
        let mut index = ImageIndex::default();
        let (a, b) = (digest('a'), digest('b'));
        index.add(
            &["x.test/y:1".to_owned()],
            &a,
            &ImageRecord {
                layers: vec!["a".to_owned()],
                config: ImageConfig::default(),
                bytes: 1,
            },
            true,
        );
        index.add(
            &["x.test/y:1".to_owned()],
            &b,
            &ImageRecord {
                layers: vec!["b".to_owned()],
                config: ImageConfig::default(),
                bytes: 1,
            },
            false,
        );
        assert_eq!(
            index.find(&name("x.test/y:1")).map(|found| found.0),
            Some(b.as_str())
        );
        assert_eq!(index.names[&format!("x.test/y@{a}")], a);
        assert!(index.imported.is_empty());
        assert_eq!(index.remove(&name("x.test/y:1")), Some(Some(b)));
        assert_eq!(index.remove(&name(&format!("x.test/y@{a}"))), Some(Some(a)));
        assert_eq!(index, ImageIndex::default());
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let mut index = ImageIndex::default();
        let record = ImageRecord {
            layers: Vec::new(),
            config: ImageConfig::default(),
            bytes: 0,
        };
        index.add(
            &["x.test/y:1".to_owned(), "x.test/y:2".to_owned()],
            &digest('a'),
            &record,
            false,
        );
        assert!(index.says(&["x.test/y:1".to_owned()], &digest('a'), &record, false));
        assert_eq!(index.remove(&name("x.test/y:1")), Some(None));
        assert_eq!(index.remove(&name("x.test/y:1")), None);
        assert_eq!(index.remove(&name("x.test/y:2")), Some(Some(digest('a'))));
    }

    #[test]
    fn configurations_of_odd_builders() {
        let config = ImageConfig::from_document(br#"{"config":{"Entrypoint":null,"Cmd":["a"],"ExposedPorts":null,"StopSignal":""},"rootfs":null}"#).expect("config");
        assert_eq!(
            config,
            ImageConfig {
                cmd: vec!["a".to_owned()],
                ..ImageConfig::default()
            }
        );
        assert_eq!(
            ImageConfig::from_document(b"{}"),
            Ok(ImageConfig::default())
        );
        assert!(ImageConfig::from_document(b"not json").is_err());
    }
}
