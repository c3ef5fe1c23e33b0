//! What a tag means now.

use std::time::Duration;

use super::{Images, PullOptions};
use crate::{Credentials, ImageError, ImageName, registry};

/// A tag that is here in some version is looked up for this long; then that version is used.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(4);

impl Images {
    /// What a tag means now, as `repository@digest`. An imported image is meant by its tag; for others the registry
    /// is asked, and what is here has to do when it does not answer.
    pub async fn resolve_digest(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<String, ImageError> {
        let name = ImageName::parse(reference)?;
        if name.digest.is_some() {
            return Ok(reference.to_owned());
        }
        if let Some(sample) = self.sample_name(&name) {
            return Ok(name.resolved(&self.sample(&name, &sample).await?.digest));
        }
        let here = self
            .find_local(&name)
            .map(|ready| name.resolved(&ready.digest));
        match here {
            Some(here) if self.imported(&name) => Ok(here),
            Some(here) => {
                match tokio::time::timeout(DIGEST_TIMEOUT, self.fetch_digest(&name, credentials))
                    .await
                {
                    Ok(Ok(digest)) => Ok(name.resolved(&digest)),
                    Ok(Err(_)) | Err(_) => Ok(here),
                }
            }
            None => Ok(name.resolved(&self.fetch_digest(&name, credentials).await?)),
        }
    }

    async fn fetch_digest(
        &self,
        name: &ImageName,
        credentials: &Credentials,
    ) -> Result<String, ImageError> {
        let mut attempts = Vec::new();
        let options = self.client_options(&PullOptions::default());
        for source in self.0.registries.sources(name)? {
            match Box::pin(registry::digest(&source, credentials, &options)).await {
                Ok(digest) => return Ok(digest),
                Err(refusal) => attempts.push(format!("{}: {}", source.name, refusal.message)),
            }
        }
        Err(ImageError::Resolve {
            reference: name.to_string(),
            attempts,
        })
    }
}
