//! One pull per image at a time: the sources of an image are asked in order until one serves it.

use std::sync::Arc;

use super::{Images, PullPolicy, ReadyImage, run_blocking};
use crate::layer_store::directory_name;
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, ImageRecord};
use crate::registries::Source;
use crate::registry::{self, SourceError};
use crate::{Credentials, ImageError, ImageName};

impl Images {
    /// Waits for the same pull of somebody else, or pulls.
    pub(super) async fn pull_once(
        &self,
        name: &ImageName,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let caller = self.0.image_pulls.join(&name.to_string());
        let _lock = caller.lock().await;
        if policy != PullPolicy::Always
            && let Some(ready) = self.find_local(name)
        {
            return Ok(ready);
        }
        if let Some(message) = caller.shared_failure(credentials) {
            return Err(ImageError::Shared(message));
        }
        let outcome = self.pull_from_sources(name, credentials, progress).await;
        if let Err(error) = &outcome {
            caller.failed(credentials, error.to_string());
        }
        outcome
    }

    async fn pull_from_sources(
        &self,
        name: &ImageName,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let sources = self.0.registries.sources(name)?;
        let (mut attempts, mut answered) = (Vec::new(), false);
        for source in sources {
            progress.report(ProgressEvent::Asking {
                source: source.name.to_string(),
            });
            match self
                .pull_from_source(name, &source, credentials, progress)
                .await
            {
                Ok(ready) => return Ok(ready),
                Err(SourceError {
                    message,
                    answered: this,
                }) => {
                    answered |= this;
                    progress.report(ProgressEvent::SourceFailed {
                        source: source.name.to_string(),
                        message: message.clone(),
                    });
                    attempts.push(format!("{}: {message}", source.name));
                }
            }
        }
        // Pull policy Always with an imported image, or without a network: what is here has to do. A registry that
        // answers with a refusal has the last word about its own images.
        if let Some(ready) = self
            .find_local(name)
            .filter(|_| !answered || self.imported(name))
        {
            tracing::warn!(image = %name, message = attempts.join("; "), "no registry serves the image, using the one that is here");
            return Ok(ready);
        }
        Err(ImageError::Pull {
            reference: name.to_string(),
            attempts,
        })
    }

    async fn pull_from_source(
        &self,
        name: &ImageName,
        source: &Source,
        credentials: &Credentials,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, SourceError> {
        let (client, manifest) = registry::manifest(source, credentials, self.0.timeouts).await?;
        let config = ImageConfig::from_document(&manifest.config).map_err(|message| {
            SourceError::answered(format!("the image configuration: {message}"))
        })?;
        let mut directories: Vec<String> = manifest
            .layers
            .iter()
            .map(|layer| directory_name(&layer.digest))
            .collect();
        let pins = self.0.layers.pin(directories.clone());
        // Only now: a registry that hangs must not keep others from their images.
        let _permit = self
            .0
            .pulls
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut bytes = 0;
        for (descriptor, directory) in manifest.layers.iter().zip(&directories) {
            bytes += u64::try_from(descriptor.size).unwrap_or(0);
            // Two images that share a layer wait for one download of it.
            let caller = self.0.layer_downloads.join(directory);
            let _lock = caller.lock().await;
            if !self.0.layers.has(directory) {
                let scratch = self.0.layers.scratch().map_err(SourceError::local)?;
                let file = scratch.path().join("layer");
                registry::layer(&client, &source.name, descriptor, &file, progress).await?;
                let (layers, directory) = (self.0.layers.clone(), directory.clone());
                run_blocking(move || layers.unpack(&directory, &file, &scratch))
                    .await
                    .map_err(SourceError::local)?;
            }
            progress.report(ProgressEvent::LayerDone {
                layer: descriptor.digest.clone(),
            });
        }
        directories.reverse();
        let record = ImageRecord {
            layers: directories,
            config,
            bytes,
        };
        let layers = self.0.layers.clone();
        run_blocking(move || layers.sync())
            .await
            .map_err(SourceError::local)?;
        self.record(vec![name.to_string()], manifest.digest, record, false)
            .await
            .map_err(SourceError::local)?;
        drop(pins);
        self.find_local(name).ok_or_else(|| {
            SourceError::answered("the image vanished while it was unpacked".to_owned())
        })
    }
}
