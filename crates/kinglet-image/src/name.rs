//! Image references: parsing, and the one spelling under which an image is stored.

use std::fmt;

use oci_client::Reference;

use crate::ImageError;

/// A parsed reference: registry, repository, and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// Host and port; `docker.io` where none was written.
    pub registry: String,
    /// Path below the registry; `library/` is added for Docker Hub's own.
    pub repository: String,
    /// `latest` where neither tag nor digest was written.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl ImageName {
    /// Parses a reference as written in a Pod.
    pub fn parse(reference: &str) -> Result<Self, ImageError> {
        let parsed: Reference = reference
            .parse()
            .map_err(|message| ImageError::InvalidName {
                reference: reference.to_owned(),
                message: format!("{message}"),
            })?;
        if parsed
            .repository()
            .bytes()
            .any(|byte| byte.is_ascii_uppercase())
        {
            return Err(ImageError::InvalidName {
                reference: reference.to_owned(),
                message: "repository name must be lowercase".to_owned(),
            });
        }
        let registry = match parsed.registry() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            other => other.to_owned(),
        };
        let tag = match (parsed.tag(), parsed.digest()) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry,
            repository: parsed.repository().to_owned(),
            tag,
            digest: parsed.digest().map(str::to_owned),
        })
    }

    /// Registry and repository, without tag and digest.
    pub fn repository_path(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The repository as Knative writes it in a resolved image (Docker Hub is `index.docker.io` there).
    pub fn resolved(&self, digest: &str) -> String {
        let registry = if self.registry == "docker.io" {
            "index.docker.io"
        } else {
            &self.registry
        };
        format!("{registry}/{}@{digest}", self.repository)
    }

    /// The same tag or digest below another `registry/repository`.
    pub fn moved(&self, location: &str) -> Result<Self, ImageError> {
        let suffix = match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => String::new(),
        };
        Self::parse(&format!("{location}{suffix}"))
    }

    pub(crate) fn wire(&self) -> Reference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Reference::with_digest(
                self.registry.clone(),
                self.repository.clone(),
                digest.clone(),
            ),
            (None, tag) => Reference::with_tag(
                self.registry.clone(),
                self.repository.clone(),
                tag.clone().unwrap_or_else(|| "latest".to_owned()),
            ),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_image() {
        for (written, stored) in [
            ("nginx", "docker.io/library/nginx:latest"),
            (
                "index.docker.io/library/nginx:1",
                "docker.io/library/nginx:1",
            ),
            ("kn.local/hello:1", "kn.local/hello:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("zqb/event-display:v1", "docker.io/zqb/event-display:v1"),
        ] {
            assert_eq!(
                ImageName::parse(written).expect(written).to_string(),
                stored
            );
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let name = ImageName::parse(&format!("gcr.io/x/y:v1@{digest}")).expect("parses");
        assert_eq!(name.to_string(), format!("gcr.io/x/y@{digest}"));
        assert_eq!(
            ImageName::parse("nginx").expect("parses").resolved(&digest),
            format!("index.docker.io/library/nginx@{digest}")
        );
    }

    #[test]
    fn nonsense_is_named() {
        for written in ["", "UPPER/case", "a b", "x@sha256:short", "-"] {
            let error = ImageName::parse(written).expect_err(written);
            assert_eq!(error.reason(), "InvalidImageName");
        }
    }
}
