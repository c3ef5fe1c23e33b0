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

/// Longest repository that registries take.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag of the distribution specification.
const TAG_BYTES_MAX: usize = 128;
const DOCKER_HUB: &str = "docker.io";
/// Other names of Docker Hub.
const DOCKER_HUB_HOSTS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// Digest algorithms of the OCI image specification, and how many hexadecimal digits each has.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];
/// A digest of any algorithm has at least this many.
const DIGITS_MIN: usize = 32;

impl ImageName {
    /// Parses a reference as written in a Pod, by the grammar of `distribution/reference`. The expression that says the same
    /// costs milliseconds and, once for the program and once for each thread that matches it, megabytes.
    pub fn parse(reference: &str) -> Result<Self, ImageError> {
        read(reference).map_err(|message| ImageError::InvalidName {
            reference: reference.to_owned(),
            message: message.to_owned(),
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

const BAD_FORMAT: &str = "invalid reference format";

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
fn read(reference: &str) -> Result<ImageName, &'static str> {
    if reference.is_empty() {
        return Err("repository name must have at least one component");
    }
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    // A colon before the last slash is that of the registry's port.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((component, tag)) => (&rest[..last + component.len()], Some(tag)),
        None => (rest, None),
    };
    if !is_name(name) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(BAD_FORMAT);
    }
    let (registry, repository) = split_registry(name);
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    Ok(ImageName {
        registry,
        repository,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// Components between slashes; the first one of several may be a registry instead.
fn is_name(name: &str) -> bool {
    match name.split_once('/') {
        None => is_component(name),
        Some((first, rest)) => {
            (is_component(first) || is_host(first)) && rest.split('/').all(is_component)
        }
    }
}

/// Runs of lower-case letters and digits with one dot, one or two underscores or any number of hyphens in between.
fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| plain(*byte));
    let bytes = text.as_bytes();
    let separators = bytes.split(|byte| plain(*byte)).all(|between| {
        matches!(between, [] | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
    });
    ends(bytes.first()) && ends(bytes.last()) && separators
}

/// Labels between dots, and a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inside)
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= TAG_BYTES_MAX
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    let (algorithm, digits) = digest.split_once(':').ok_or(BAD_FORMAT)?;
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !algorithm.split(['-', '_', '+', '.']).all(is_part)
        || digits.len() < DIGITS_MIN
        || !hexadecimal
    {
        return Err(BAD_FORMAT);
    }
    match ALGORITHMS.iter().find(|(name, _)| *name == algorithm) {
        None => Err("unsupported digest algorithm"),
        Some((_, length)) if *length != digits.len() => Err("invalid checksum digest length"),
        Some(_) => Ok(()),
    }
}

/// What stands before the first slash is a registry when it looks like a host; else all of it is on Docker Hub.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (DOCKER_HUB, name),
    };
    // Docker Hub's own images are below `library`, by the two names that people write; the third one is machines'.
    let hub = registry == DOCKER_HUB || registry == DOCKER_HUB_HOSTS[0];
    let repository = match hub && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository.to_owned(),
    };
    let registry = match DOCKER_HUB_HOSTS.contains(&registry) {
        true => DOCKER_HUB,
        false => registry,
    };
    (registry.to_owned(), repository)
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

    /// What the OCI client's own parser says, which matches an expression.
    fn by_expression(text: &str) -> Option<ImageName> {
        let parsed: Reference = text.parse().ok()?;
        let registry = match parsed.registry() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let lower = !parsed
            .repository()
            .bytes()
            .any(|byte| byte.is_ascii_uppercase());
        lower.then(|| ImageName {
            registry: registry.to_owned(),
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().map(str::to_owned),
            digest: parsed.digest().map(str::to_owned),
        })
    }

    #[test]
    fn length_limits() {
        let digits = |count: usize| "aF09".repeat(count / 4);
        for text in [
            format!("a/{}", "b".repeat(255)),
            format!("a.b/{}", "b".repeat(255)),
            format!("a.b/{}", "b".repeat(256)),
            format!("a:{}", "t".repeat(128)),
            format!("a:{}", "t".repeat(129)),
            format!("a@sha256:{}", digits(64)),
            format!("a:1@sha256:{}", digits(60)),
            format!("a@sha256:{}", digits(28)),
            format!("a@sha384:{}", digits(96)),
            format!("a@sha512:{}", digits(128)),
            format!("a@sha512:{}", digits(64)),
            format!("a@md5:{}", digits(32)),
            format!("a@sha256:{}@sha256:{}", digits(64), digits(64)),
        ] {
            assert_eq!(ImageName::parse(&text).ok(), by_expression(&text), "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
        #[test]
        fn says_what_the_expression_says(
            text in "([a-cA0]|[a-z0.-]{1,4}\\.io|localhost|index\\.docker\\.io|registry-1\\.docker\\.io|[a._:-]{1,5})?(:[0-9]{1,2})?/?[a0._/-]{0,8}([a-b0](__|[-]{1,3}|[._])[a-z0-9]{1,2}){0,2}(:[a-zA-Z_.0-9-]{0,4})?(@[a-z+.]{0,7}:[0-9a-g]{30,34}|@sha256:[0-9a-fA-F]{64})?"
        ) {
            proptest::prop_assert_eq!(ImageName::parse(&text).ok(), by_expression(&text), "{}", text);
        }

        #[test]
        fn any_ascii_text(text in "[ -~]{0,24}") {
            proptest::prop_assert_eq!(ImageName::parse(&text).ok(), by_expression(&text), "{}", text);
        }
    }
}
