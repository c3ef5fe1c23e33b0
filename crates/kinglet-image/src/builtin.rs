//! Images that lie inside the binary: the documentation's samples, reachable as `samples.kinglet/NAME:anything`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::records::{ImageConfig, ImageRecord};

/// One file of a built-in layer.
#[derive(Clone, Debug)]
pub struct BuiltinFile {
    /// Path below the root.
    pub path: &'static str,
    /// Unix mode.
    pub mode: u32,
    /// Content.
    pub bytes: &'static [u8],
}

/// An image made of one layer that several may share.
#[derive(Clone, Debug)]
pub struct BuiltinImage {
    /// Repository on `samples.kinglet`.
    pub name: &'static str,
    /// The layer's files.
    pub files: &'static [BuiltinFile],
    /// How to start it.
    pub config: ImageConfig,
}

impl BuiltinImage {
    /// Name of the layer directory: a digest over its files.
    pub fn layer(&self) -> String {
        let mut hash = Sha256::new();
        for file in self.files {
            hash.update(file.path.as_bytes());
            hash.update(file.mode.to_le_bytes());
            hash.update((file.bytes.len() as u64).to_le_bytes());
            hash.update(file.bytes);
        }
        format!("sample-{}", hex(&hash.finalize()))
    }

    /// Digest that stands for the manifest this image does not have.
    pub fn digest(&self, layer: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(layer.as_bytes());
        hash.update(serde_json::to_vec(&self.config).expect("strings serialize"));
        format!("sha256:{}", hex(&hash.finalize()))
    }

    pub(crate) fn record(&self, layer: String) -> ImageRecord {
        let bytes = self.files.iter().map(|file| file.bytes.len() as u64).sum();
        ImageRecord {
            layers: vec![layer],
            config: self.config.clone(),
            bytes,
        }
    }

    pub(crate) fn write(&self, target: &Path) -> std::io::Result<()> {
        for file in self.files {
            let path = target.join(file.path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut out = std::fs::File::create(&path)?;
            out.write_all(file.bytes)?;
            // A record of it must not outlive its content when the power fails.
            out.sync_all()?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        }
        let tmp = target.join("tmp");
        std::fs::create_dir_all(&tmp)?;
        std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o1777))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
