//! What a tag means, for Revisions: the local image store first.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use kinglet_image::Images;

pub(crate) struct Digests(pub(crate) Images);

impl Digests {
    pub(crate) fn shared(images: &Images) -> Arc<Self> {
        Arc::new(Self(images.clone()))
    }
}

impl kinglet_serving::ResolveDigest for Digests {
    fn resolve<'a>(
        &'a self,
        image: &'a str,
        credentials: &'a kinglet_image::Credentials,
    ) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            self.0
                .resolve_digest(image, credentials)
                .await
                .map_err(|error| error.to_string())
        })
    }
}
