//! Image archives: `docker save`, OCI layouts in a tar, and a bare root file system.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::builtin::hex;
use crate::layer::{Below, Cancel};
use crate::records::{ImageConfig, diff_ids};
use crate::registry::LAYERS_MAX;
use crate::{ImageError, layer};

/// JSON documents inside an archive.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Images of one archive; `docker save` of everything on a large machine has some hundreds.
const IMAGES_MAX: usize = 1000;

/// An archive taken apart: layers lie as files in the scratch folder.
pub(crate) struct ArchiveImage {
    /// References the archive itself names.
    pub names: Vec<String>,
    /// Digest that identifies the image.
    pub digest: String,
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, where the configuration tells.
    pub diff_ids: Vec<String>,
    /// Layer name and file, bottom first.
    pub layers: Vec<(String, PathBuf)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// Takes apart every image in `path`, using `scratch` (an empty folder) for the archive's members.
pub(crate) fn open(
    path: &Path,
    scratch: &Path,
    below: &Below,
) -> Result<Vec<ArchiveImage>, ImageError> {
    let fail = |message: String| ImageError::Archive {
        path: path.to_owned(),
        message,
    };
    let wanted = ["manifest.json", "oci-layout", "index.json"];
    let Some([docker_save, layout, index]) =
        layer::members(path, wanted, &below.cancel).map_err(fail)?
    else {
        return Err(fail("it is empty".to_owned()));
    };
    if !(docker_save || layout && index) {
        return root(path, &below.cancel)
            .map(|opened| vec![opened])
            .map_err(fail);
    }
    layer::unpack(path, scratch, below).map_err(fail)?;
    if docker_save {
        docker(scratch, &below.cancel)
    } else {
        oci(scratch, &below.cancel)
    }
    .map_err(fail)
}

fn docker(scratch: &Path, cancel: &Cancel) -> Result<Vec<ArchiveImage>, String> {
    let manifests: Vec<DockerManifest> = document(scratch, "manifest.json")?;
    few(manifests.len())?;
    manifests
        .into_iter()
        .map(|manifest| {
            let config = bytes(scratch, &manifest.config)?;
            bounded(manifest.layers.len())?;
            let layers = manifest
                .layers
                .iter()
                .map(|name| named_layer(scratch, name, cancel))
                .collect::<Result<_, _>>()?;
            Ok(ArchiveImage {
                names: manifest.repo_tags.unwrap_or_default(),
                digest: format!("sha256:{}", hex(&Sha256::digest(&config))),
                config: ImageConfig::from_document(&config)?,
                diff_ids: diff_ids(&config)?,
                layers,
            })
        })
        .collect()
}

fn oci(scratch: &Path, cancel: &Cancel) -> Result<Vec<ArchiveImage>, String> {
    let index: OciIndex = document(scratch, "index.json")?;
    few(index.manifests.len())?;
    // Attestations lie beside the images they are about, for a platform called unknown.
    let images: Vec<ArchiveImage> = index
        .manifests
        .iter()
        .filter(|descriptor| fits(descriptor))
        .map(|descriptor| oci_image(scratch, descriptor, 0, cancel))
        .collect::<Result<_, _>>()?;
    if images.is_empty() {
        Err(format!("no image for linux/{} in the archive", machine()))
    } else {
        Ok(images)
    }
}

fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

fn fits(entry: &Descriptor) -> bool {
    entry
        .platform
        .as_ref()
        .is_none_or(|platform| platform.os == "linux" && platform.architecture == machine())
}

fn oci_image(
    scratch: &Path,
    descriptor: &Descriptor,
    depth: u8,
    cancel: &Cancel,
) -> Result<ArchiveImage, String> {
    let text = verified(scratch, &descriptor.digest)?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if value.get("manifests").is_some() {
        if depth > 2 {
            return Err("image indexes nested too deep".to_owned());
        }
        let index: OciIndex = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let chosen = index
            .manifests
            .iter()
            .find(|entry| fits(entry))
            .ok_or_else(|| format!("no image for linux/{} in the archive", machine()))?;
        let mut opened = oci_image(scratch, chosen, depth + 1, cancel)?;
        opened.names.extend(names(descriptor));
        opened.digest.clone_from(&descriptor.digest);
        return Ok(opened);
    }
    let manifest: OciManifest = serde_json::from_value(value).map_err(|error| error.to_string())?;
    bounded(manifest.layers.len())?;
    let config = verified(scratch, &manifest.config.digest)?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| {
            let (digest, file) = named_layer(scratch, &blob(&layer.digest)?, cancel)?;
            same(&layer.digest, &digest)?;
            Ok((digest, file))
        })
        .collect::<Result<_, String>>()?;
    Ok(ArchiveImage {
        names: names(descriptor),
        digest: descriptor.digest.clone(),
        config: ImageConfig::from_document(&config)?,
        diff_ids: diff_ids(&config)?,
        layers,
    })
}

/// The whole archive as the only layer of an image without configuration.
fn root(path: &Path, cancel: &Cancel) -> Result<ArchiveImage, String> {
    let mut hash = Sha256::new();
    let mut file = layer::open_file(path).map_err(|error| error.to_string())?;
    std::io::copy(&mut file, &mut HashWriter(&mut hash, cancel))
        .map_err(|error| error.to_string())?;
    let digest = format!("sha256:{}", hex(&hash.finalize()));
    let config = ImageConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        ..ImageConfig::default()
    };
    Ok(ArchiveImage {
        names: Vec::new(),
        digest: digest.clone(),
        config,
        diff_ids: Vec::new(),
        layers: vec![(digest, path.to_owned())],
    })
}

/// Hashes what is written to it, until nobody waits for the hash any more.
struct HashWriter<'a>(&'a mut Sha256, &'a Cancel);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.1.is_cancelled() {
            return Err(std::io::Error::other("the import was cancelled"));
        }
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn names(descriptor: &Descriptor) -> Vec<String> {
    [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ]
    .iter()
    .filter_map(|key| descriptor.annotations.get(*key))
    .filter(|name| name.contains('/') || name.contains(':'))
    .take(1)
    .cloned()
    .collect()
}

fn bounded(layers: usize) -> Result<(), String> {
    if layers > LAYERS_MAX {
        Err(format!(
            "the image has {layers} layers, more than {LAYERS_MAX}"
        ))
    } else {
        Ok(())
    }
}

/// Every image of an archive is read and hashed.
fn few(images: usize) -> Result<(), String> {
    if images > IMAGES_MAX {
        Err(format!("it holds {images} images, more than {IMAGES_MAX}"))
    } else {
        Ok(())
    }
}

fn blob(digest: &str) -> Result<String, String> {
    match digest.split_once(':') {
        Some((algorithm, hex))
            if algorithm
                .bytes()
                .chain(hex.bytes())
                .all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            Ok(format!("blobs/{algorithm}/{hex}"))
        }
        _ => Err(format!("{digest:?} is not a digest")),
    }
}

/// A document, which must be what its digest says: what is stored under a digest is trusted from then on.
fn verified(scratch: &Path, digest: &str) -> Result<Vec<u8>, String> {
    let content = bytes(scratch, &blob(digest)?)?;
    same(
        digest,
        &format!("sha256:{}", hex(&Sha256::digest(&content))),
    )?;
    Ok(content)
}

fn same(said: &str, found: &str) -> Result<(), String> {
    if said == found {
        Ok(())
    } else {
        Err(format!("the content called {said} has the digest {found}"))
    }
}

/// Docker names layers by folder or blob; the content's own digest is what identifies them.
fn named_layer(scratch: &Path, name: &str, cancel: &Cancel) -> Result<(String, PathBuf), String> {
    let path = member(scratch, name)?;
    let mut hash = Sha256::new();
    let mut file = layer::open_file(&path).map_err(|error| format!("{name}: {error}"))?;
    std::io::copy(&mut file, &mut HashWriter(&mut hash, cancel))
        .map_err(|error| format!("{name}: {error}"))?;
    Ok((format!("sha256:{}", hex(&hash.finalize())), path))
}

/// A member's path, with links resolved and still inside the scratch folder.
fn member(scratch: &Path, name: &str) -> Result<PathBuf, String> {
    let root = scratch.canonicalize().map_err(|error| error.to_string())?;
    let path = scratch
        .join(name)
        .canonicalize()
        .map_err(|_| format!("the archive has no {name}"))?;
    if path.starts_with(&root) {
        Ok(path)
    } else {
        Err(format!("{name} leads outside of the archive"))
    }
}

fn bytes(scratch: &Path, name: &str) -> Result<Vec<u8>, String> {
    let file =
        layer::open_file(&member(scratch, name)?).map_err(|error| format!("{name}: {error}"))?;
    let mut content = Vec::new();
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| format!("{name}: {error}"))?;
    if content.len() as u64 > DOCUMENT_BYTES_MAX {
        Err(format!("{name} is larger than {DOCUMENT_BYTES_MAX} bytes"))
    } else {
        Ok(content)
    }
}

fn document<T: serde::de::DeserializeOwned>(scratch: &Path, name: &str) -> Result<T, String> {
    serde_json::from_slice(&bytes(scratch, name)?).map_err(|error| format!("{name}: {error}"))
}
