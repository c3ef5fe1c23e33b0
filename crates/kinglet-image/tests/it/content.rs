//! Images to serve and folders to put them in.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kinglet_image::{Images, Registries, Timeouts};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A folder of one test, removed with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("kinglet-image-it-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    pub(crate) fn images(&self, conf: &str) -> Images {
        self.images_with(conf, Vec::new())
    }

    pub(crate) fn images_with(
        &self,
        conf: &str,
        builtin: Vec<kinglet_image::BuiltinImage>,
    ) -> Images {
        let timeouts = Timeouts {
            connect: std::time::Duration::from_millis(500),
            read: std::time::Duration::from_millis(500),
        };
        Images::open_with(
            &self.0.join("store"),
            Registries::parse(conf).expect("conf"),
            builtin,
            timeouts,
        )
        .expect("store")
    }

    pub(crate) fn layers(&self) -> usize {
        entries(&self.0.join("store/layers"))
    }

    pub(crate) fn scratch(&self) -> usize {
        entries(&self.0.join("store/scratch"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entries(path: &Path) -> usize {
    std::fs::read_dir(path).expect("folder").count()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| {
            format!("{text}{byte:02x}")
        })
}

/// A tar of plain files.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .expect("append");
    }
    builder.into_inner().expect("tar")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("zstd")
}

/// Blobs by digest, and one manifest.
#[derive(Clone, Default)]
pub(crate) struct Built {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: &'static str,
}

impl Built {
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    pub(crate) fn layer(&self, number: usize) -> String {
        let manifest: serde_json::Value = serde_json::from_slice(&self.manifest).expect("manifest");
        manifest["layers"][number]["digest"]
            .as_str()
            .expect("layer")
            .to_owned()
    }
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of layers, bottom first.
pub(crate) fn image(cmd: &str, layers: &[Vec<u8>]) -> Built {
    image_of(cmd, layers, &[])
}

/// An image whose configuration tells the digests of its uncompressed layers.
pub(crate) fn image_of(cmd: &str, layers: &[Vec<u8>], diff_ids: &[String]) -> Built {
    let mut blobs = BTreeMap::new();
    let config = serde_json::to_vec(&json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": [cmd], "User": "7"}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})).expect("config");
    let mut described = Vec::new();
    for layer in layers {
        let suffix = match layer[..] {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, ..] => "+zstd",
            _ => "",
        };
        described.push(json!({"mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"), "digest": digest(layer), "size": layer.len()}));
        blobs.insert(digest(layer), layer.clone());
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": described,
    });
    blobs.insert(digest(&config), config);
    Built {
        blobs,
        manifest: serde_json::to_vec(&manifest).expect("manifest"),
        media_type: MANIFEST,
    }
}

/// A list of images, one per architecture.
pub(crate) fn list(images: &[(&str, &Built)]) -> Built {
    let manifests: Vec<_> = images
        .iter()
        .map(|(architecture, built)| json!({"mediaType": MANIFEST, "digest": built.digest(), "size": built.manifest.len(), "platform": {"architecture": architecture, "os": "linux"}}))
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    Built {
        blobs: BTreeMap::new(),
        manifest: serde_json::to_vec(&manifest).expect("index"),
        media_type: INDEX,
    }
}
