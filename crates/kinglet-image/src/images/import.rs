//! Images from archives.

use std::path::Path;

use super::{ImageSummary, Images, run_blocking};
use crate::layer_store::directory_name;
use crate::records::ImageRecord;
use crate::registries::SAMPLES_HOST;
use crate::{ImageError, ImageName, archive};

impl Images {
    /// Imports every image of an archive; `name` is given to the first (and is needed where the archive names none).
    pub async fn import(
        &self,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let name = name.map(ImageName::parse).transpose()?;
        if let Some(name) = &name {
            let message = match name {
                _ if name.digest.is_some() => {
                    Some("an imported image is named by a tag; its digest follows from its content")
                }
                _ if name.registry == SAMPLES_HOST => {
                    Some("the samples lie inside the binary and cannot be replaced")
                }
                _ => None,
            };
            if let Some(message) = message {
                return Err(ImageError::InvalidName {
                    reference: name.to_string(),
                    message: message.to_owned(),
                });
            }
        }
        let (images, path) = (self.clone(), path.to_owned());
        run_blocking(move || images.import_blocking(&path, name.as_ref())).await
    }

    pub(super) fn import_blocking(
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
                let message = "it names no image; say which name it shall have: kinglet image import FILE NAME".to_owned();
                return Err(ImageError::Archive {
                    path: path.to_owned(),
                    message,
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
                &ImageRecord {
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
}
