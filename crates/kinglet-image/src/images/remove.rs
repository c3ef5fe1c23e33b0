//! Forgetting images.

use std::collections::BTreeSet;
use std::sync::Weak;

use super::{Images, run_blocking};
use crate::registries::SAMPLES_HOST;
use crate::{ImageError, ImageName};

impl Images {
    /// Forgets a reference, and the layers that nothing else needs.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let name = ImageName::parse(reference)?;
        if name.registry == SAMPLES_HOST {
            return Err(ImageError::BuiltIn {
                reference: name.to_string(),
            });
        }
        let images = self.clone();
        run_blocking(move || images.remove_blocking(&name)).await
    }

    fn remove_blocking(&self, name: &ImageName) -> Result<(), ImageError> {
        let _writer = self.0.writer.lock();
        let mut index = self.0.index.lock();
        let before = index.clone();
        let mut next = before.clone();
        let forgotten = next.remove(name).ok_or_else(|| ImageError::NotHere {
            reference: name.to_string(),
        })?;
        let used = |digest: &String| {
            self.0
                .ready
                .lock()
                .values()
                .filter_map(Weak::upgrade)
                .any(|image| image.digest == *digest)
        };
        if forgotten.as_ref().is_some_and(used) {
            return Err(ImageError::InUse {
                reference: name.to_string(),
            });
        }
        // From here nobody is given the image any more.
        *index = next.clone();
        drop(index);
        if let Err(error) = next.save(&self.0.root.join("index.json")) {
            *self.0.index.lock() = before;
            return Err(error);
        }
        let needed: BTreeSet<&String> = next
            .images
            .values()
            .flat_map(|record| &record.layers)
            .collect();
        for layer in before
            .images
            .values()
            .flat_map(|record| &record.layers)
            .filter(|layer| !needed.contains(layer))
        {
            self.0.layers.remove(layer)?;
        }
        Ok(())
    }
}
