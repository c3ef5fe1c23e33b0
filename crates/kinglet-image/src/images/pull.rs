//! One pull per image at a time: the sources of an image are asked in order until one serves it.

use std::path::PathBuf;
use std::sync::Arc;

use oci_client::manifest::OciDescriptor;

use super::{
    IMAGE_BYTES_MAX, Images, Origin, PullOptions, PullPolicy, ReadyImage, Requester, all_names,
    run_blocking, run_cancellable, take_bytes,
};
use crate::layer::Below;
use crate::layer_store::{LayerNames, layer_names};
use crate::progress::{Progress, ProgressEvent};
use crate::records::{ImageConfig, ImageRecord, diff_ids};
use crate::registries::Source;
use crate::registry::{self, RegistryClient, SourceError};
use crate::{ImageError, ImageName};

impl Images {
    /// Waits for the same pull of somebody else, or pulls.
    pub(super) async fn pull_once(
        &self,
        name: &ImageName,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let caller = self.0.image_pulls.join(&name.to_string());
        let _lock = caller.lock().await;
        if options.policy != PullPolicy::Always
            && let Some(ready) = self.find_allowed(name, options)
        {
            return Ok(ready);
        }
        let (credentials, requester) = (&options.credentials, options.requester);
        // What the operator may do fails or succeeds for other reasons than what a Pod may.
        if requester == Requester::Tenant
            && let Some(message) = caller.shared_failure(credentials)
        {
            return Err(ImageError::Shared(message));
        }
        let outcome = self.pull_from_sources(name, options, progress).await;
        if let Err(error) = &outcome
            && requester == Requester::Tenant
        {
            caller.failed(credentials, error.to_string());
        }
        outcome
    }

    async fn pull_from_sources(
        &self,
        name: &ImageName,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, ImageError> {
        let sources = self.0.registries.sources(name)?;
        let (mut attempts, mut answered) = (Vec::new(), false);
        for source in sources {
            progress.report(ProgressEvent::Asking {
                source: source.name.to_string(),
            });
            match self
                .pull_from_source(name, &source, options, progress)
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
            .find_allowed(name, options)
            .filter(|_| !answered || self.imported(name))
        {
            tracing::warn!(image = %name, reason = attempts.join("; "), "no registry serves the image, using the one that is here");
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
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Arc<ReadyImage>, SourceError> {
        let client_options = self.client_options(options);
        let (client, manifest) =
            registry::manifest(source, &options.credentials, &client_options).await?;
        let malformed =
            |message: String| SourceError::answered(format!("the image configuration: {message}"));
        let config = ImageConfig::from_document(&manifest.config).map_err(malformed)?;
        let digests: Vec<String> = manifest
            .layers
            .iter()
            .map(|layer| layer.digest.clone())
            .collect();
        let diff_ids = diff_ids(&manifest.config).map_err(malformed)?;
        let layers = layer_names(&digests, &diff_ids).map_err(SourceError::answered)?;
        let pins = self.0.layers.pin(all_names(&layers));
        // Only now: a registry that hangs must not keep others from their images.
        let _permit = self
            .0
            .pulls
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut bytes = 0;
        let mut bytes_left = IMAGE_BYTES_MAX;
        let mut directories: Vec<String> = Vec::new();
        for (descriptor, names) in manifest.layers.iter().zip(&layers) {
            bytes += u64::try_from(descriptor.size).unwrap_or(0);
            let parents = directories
                .iter()
                .rev()
                .map(|directory| self.0.layers.path(directory))
                .collect();
            let (directory, unpacked) = self
                .pull_layer(&client, source, descriptor, names, parents, progress)
                .await?;
            take_bytes(&mut bytes_left, unpacked, &names.id).map_err(SourceError::local)?;
            directories.push(directory);
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
        let hash = options.credentials.hash(&source.name.repository_path());
        let origin = match hash {
            Some(hash) if options.requester == Requester::Tenant => Origin::Private(hash),
            _ => Origin::Public,
        };
        self.record(vec![name.to_string()], manifest.digest, record, origin)
            .await
            .map_err(SourceError::local)?;
        drop(pins);
        self.find_local(name).ok_or_else(|| {
            SourceError::answered("the image vanished while it was unpacked".to_owned())
        })
    }

    /// Has one layer here: the name of its directory, and the bytes that were unpacked for it.
    async fn pull_layer(
        &self,
        client: &RegistryClient,
        source: &Source,
        descriptor: &OciDescriptor,
        names: &LayerNames,
        parents: Vec<PathBuf>,
        progress: &Progress,
    ) -> Result<(String, u64), SourceError> {
        // Two images that share a layer wait for one download of it.
        let caller = self.0.layer_downloads.join(&names.alone);
        let _lock = caller.lock().await;
        if let Some(directory) = self.0.layers.find(names) {
            return Ok((directory, 0));
        }
        let scratch = self.0.layers.scratch().map_err(SourceError::local)?;
        let file = scratch.path().join("layer");
        registry::layer(client, &source.name, descriptor, &file, progress).await?;
        let (layers, names) = (self.0.layers.clone(), names.clone());
        run_cancellable(move |cancel| {
            let below = Below { parents, cancel };
            layers.unpack(&names, &file, &below, &scratch)
        })
        .await
        .map_err(SourceError::local)
    }
}
