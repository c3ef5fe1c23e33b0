//! Image references: parsing, and the one spelling under which an image is stored.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use oci_client::Reference;
use parking_lot::Mutex;

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

/// References that are remembered: more than a machine has images. When they are used up, all are forgotten.
const KNOWN_MAX: usize = 1024;
/// A longer one is not remembered (registries allow 255 bytes for a repository).
const KNOWN_BYTES_MAX: usize = 512;
/// What has been parsed. The expression that the parser matches needs milliseconds and, for every thread that matches it,
/// megabytes; the same reference is parsed at each start of a container.
static KNOWN: LazyLock<Mutex<HashMap<String, ImageName>>> = LazyLock::new(Mutex::default);

fn remember(known: &mut HashMap<String, ImageName>, reference: &str, parsed: &ImageName) {
    if reference.len() > KNOWN_BYTES_MAX {
        return;
    }
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(reference.to_owned(), parsed.clone());
}

impl ImageName {
    /// Parses a reference as written in a Pod.
    pub fn parse(reference: &str) -> Result<Self, ImageError> {
        if let Some(known) = KNOWN.lock().get(reference) {
            return Ok(known.clone());
        }
        let parsed = Self::parse_anew(reference)?;
        remember(&mut KNOWN.lock(), reference, &parsed);
        Ok(parsed)
    }

    fn parse_anew(reference: &str) -> Result<Self, ImageError> {
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

    #[test]
    fn what_is_remembered_is_what_was_parsed_and_bounded() {
        for text in ["nginx", "example.com:5000/a/b:c"] {
            let name = ImageName::parse_anew(text).expect(text);
            assert_eq!(ImageName::parse(text).expect(text), name);
            assert_eq!(ImageName::parse(text).expect("remembered"), name);
        }
        let (mut known, name) = (HashMap::new(), ImageName::parse("nginx").expect("name"));
        for number in 0..2 * KNOWN_MAX {
            remember(&mut known, &format!("nginx:{number}"), &name);
            assert!((1..=KNOWN_MAX).contains(&known.len()));
        }
        let long = "a".repeat(KNOWN_BYTES_MAX + 1);
        remember(&mut known, &long, &name);
        assert!(!known.contains_key(&long));
    }
}
