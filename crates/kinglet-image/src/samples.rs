//! The built-in images of one binary, hashed once.

use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::BuiltinImage;

/// All samples; every tag and digest of one means the same image.
pub(crate) struct Samples {
    images: Vec<Sample>,
    /// Layer names by the address of their files: samples share one program, which is hashed once.
    layers: Mutex<Vec<(usize, String)>>,
}

struct Sample {
    image: BuiltinImage,
    identity: OnceLock<SampleIdentity>,
}

/// What a sample is called on disk and by digest.
#[derive(Clone, Debug)]
pub(crate) struct SampleIdentity {
    pub layer: String,
    pub digest: String,
}

impl Samples {
    pub(crate) fn new(images: Vec<BuiltinImage>) -> Self {
        let images = images
            .into_iter()
            .map(|image| Sample {
                image,
                identity: OnceLock::new(),
            })
            .collect();
        Self {
            images,
            layers: Mutex::default(),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<(&BuiltinImage, &SampleIdentity)> {
        self.images
            .iter()
            .find(|sample| sample.image.name == name)
            .map(|sample| (&sample.image, self.identity(sample)))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&BuiltinImage, &SampleIdentity)> {
        self.images
            .iter()
            .map(|sample| (&sample.image, self.identity(sample)))
    }

    fn identity<'a>(&self, sample: &'a Sample) -> &'a SampleIdentity {
        sample.identity.get_or_init(|| {
            let address = sample.image.files.as_ptr().addr();
            let mut layers = self.layers.lock();
            let layer = match layers.iter().find(|(known, _)| *known == address) {
                Some((_, layer)) => layer.clone(),
                None => {
                    let layer = sample.image.layer();
                    layers.push((address, layer.clone()));
                    layer
                }
            };
            SampleIdentity {
                digest: sample.image.digest(&layer),
                layer,
            }
        })
    }
}
