//! Built-in samples: unpacked from the binary when they are first needed.

use std::sync::Arc;

use super::{Images, Origin, ReadyImage, run_blocking};
use crate::registries::SAMPLES_HOST;
use crate::{ImageError, ImageName};

impl Images {
    /// The sample that a reference leads to, directly or by a rewrite.
    pub(super) fn sample_name(&self, name: &ImageName) -> Option<ImageName> {
        let sources = self.0.registries.sources(name).ok()?;
        sources
            .into_iter()
            .map(|source| source.name)
            .find(|name| name.registry == SAMPLES_HOST)
    }

    pub(super) async fn sample(
        &self,
        name: &ImageName,
        sample: &ImageName,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let Some((image, identity)) = self.0.samples.find(&sample.repository) else {
            let known = self
                .0
                .samples
                .all()
                .map(|(image, _)| format!("{SAMPLES_HOST}/{}", image.name))
                .collect();
            return Err(ImageError::NoSample {
                reference: sample.to_string(),
                known,
            });
        };
        let pins = self.0.layers.pin(vec![identity.layer.clone()]);
        if !self.0.layers.has(&identity.layer) {
            let (layers, image, layer) =
                (self.0.layers.clone(), image.clone(), identity.layer.clone());
            run_blocking(move || {
                let scratch = layers.scratch()?;
                layers.fill(&layer, &scratch, |unpacked| {
                    image
                        .write(unpacked)
                        .map_err(ImageError::store("writing sample", unpacked))
                })
            })
            .await?;
        }
        let names = vec![name.to_string(), sample.to_string()];
        self.record(
            names,
            identity.digest.clone(),
            image.record(identity.layer.clone()),
            Origin::Public,
        )
        .await?;
        drop(pins);
        self.find_local(name).ok_or_else(|| ImageError::NotHere {
            reference: name.to_string(),
        })
    }
}
