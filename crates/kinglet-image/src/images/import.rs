//! Images from archives.

use std::path::Path;

use super::{
    IMAGE_BYTES_MAX, ImageSummary, Images, Origin, all_names, run_cancellable, take_bytes,
};
use crate::archive::{self, ArchiveImage};
use crate::layer::{Below, Cancel};
use crate::layer_store::{LayerNames, layer_names};
use crate::records::ImageRecord;
use crate::registries::SAMPLES_HOST;
use crate::{ImageError, ImageName};

impl Images {
    /// Imports every image of an archive; `name` is given to the first (and is needed where the archive names none).
    pub async fn import(
        &self,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let name = name.map(ImageName::parse).transpose()?;
        if let Some(name) = &name {
            check_name(name)?;
        }
        let _permit = self
            .0
            .imports
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let (images, path) = (self.clone(), path.to_owned());
        run_cancellable(move |cancel| images.import_blocking(&path, name.as_ref(), cancel)).await
    }

    pub(super) fn import_blocking(
        &self,
        path: &Path,
        name: Option<&ImageName>,
        cancel: Cancel,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let mut below = Below {
            parents: Vec::new(),
            cancel,
        };
        let members = self.0.layers.scratch()?;
        let failed = |message: String| ImageError::Archive {
            path: path.to_owned(),
            message,
        };
        let mut images = Vec::new();
        // All of the archive is understood before any of it is recorded.
        for (position, opened) in archive::open(path, members.path(), &below)?
            .into_iter()
            .enumerate()
        {
            let names = names_for(&opened, name.filter(|_| position == 0))?;
            if names.is_empty() {
                return Err(failed("it names no image; say which name it shall have: kinglet image import FILE NAME".to_owned()));
            }
            images.push((names, opened));
        }
        let mut rows = Vec::new();
        for (names, opened) in images {
            let digests: Vec<String> = opened
                .layers
                .iter()
                .map(|(digest, _)| digest.clone())
                .collect();
            let layers = layer_names(&digests, &opened.diff_ids).map_err(failed)?;
            let pins = self.0.layers.pin(all_names(&layers));
            let (directories, bytes) = self.unpack_layers(&opened, &layers, &mut below)?;
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            self.record_blocking(
                &names,
                &opened.digest,
                &ImageRecord {
                    layers: directories,
                    config: opened.config,
                    bytes,
                },
                &Origin::Import,
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

    /// Unpacks the layers that are not there yet: the directories of all, topmost first, and the bytes of their archives.
    fn unpack_layers(
        &self,
        opened: &ArchiveImage,
        layers: &[LayerNames],
        below: &mut Below,
    ) -> Result<(Vec<String>, u64), ImageError> {
        let (mut bytes, mut directories) = (0_u64, Vec::new());
        let mut bytes_left = IMAGE_BYTES_MAX;
        below.parents.clear();
        for ((_, file), names) in opened.layers.iter().zip(layers) {
            bytes += std::fs::metadata(file).map(|meta| meta.len()).unwrap_or(0);
            let directory = match self.0.layers.find(names) {
                Some(directory) => directory,
                None => {
                    let scratch = self.0.layers.scratch()?;
                    let (name, unpacked) = self.0.layers.unpack(names, file, below, &scratch)?;
                    take_bytes(&mut bytes_left, unpacked, &names.id)?;
                    name
                }
            };
            below.parents.insert(0, self.0.layers.path(&directory));
            directories.push(directory);
        }
        self.0.layers.sync()?;
        directories.reverse();
        Ok((directories, bytes))
    }
}

/// The name that an image is given, or those that its archive has for it.
fn names_for(
    opened: &ArchiveImage,
    given: Option<&ImageName>,
) -> Result<Vec<ImageName>, ImageError> {
    if let Some(name) = given {
        return Ok(vec![name.clone()]);
    }
    let names = opened.names.iter().map(|name| {
        let name = ImageName::parse(name)?;
        check_name(&name)?;
        Ok(name)
    });
    names.collect()
}

/// Refuses names that an import cannot give.
fn check_name(name: &ImageName) -> Result<(), ImageError> {
    let message = if name.digest.is_some() {
        "an imported image is named by a tag; its digest follows from its content"
    } else if name.registry == SAMPLES_HOST {
        "the samples lie inside the binary and cannot be replaced"
    } else {
        return Ok(());
    };
    Err(ImageError::InvalidName {
        reference: name.to_string(),
        message: message.to_owned(),
    })
}
