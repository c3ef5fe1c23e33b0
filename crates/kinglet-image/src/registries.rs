//! containers-registries.conf(5), version 2: mirrors, rewrites, blocked prefixes.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::{ImageError, ImageName};

/// The host whose images lie inside the binary.
pub const SAMPLES_HOST: &str = "samples.kinglet";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    registry: Vec<Entry>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<String>,
}

/// Where an image may be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The reference to ask for there.
    pub name: ImageName,
    /// Plain HTTP and unverified certificates are acceptable.
    pub insecure: bool,
}

/// A parsed registries.conf.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    entries: Vec<Entry>,
}

impl Registries {
    /// Reads a file; an absent one means no rules when `must_exist` is false.
    pub fn load(path: &Path, must_exist: bool) -> Result<Self, ImageError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(ImageError::Registries {
                    path: path.to_owned(),
                    message: error.to_string(),
                });
            }
        };
        Self::parse(&text).map_err(|message| ImageError::Registries {
            path: path.to_owned(),
            message,
        })
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            // One line; the library draws a picture of several.
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].lines().count().max(1)
            });
            format!(
                "line {line}: {}",
                error.message().lines().collect::<Vec<_>>().join(", ")
            )
        })?;
        for (index, entry) in file.registry.iter().enumerate() {
            if entry.prefix.is_none() && entry.location.is_none() {
                return Err(format!(
                    "[[registry]] number {} has neither prefix nor location",
                    index + 1
                ));
            }
            if entry.location.is_none()
                && entry
                    .prefix
                    .as_deref()
                    .is_some_and(|prefix| prefix.starts_with("*."))
                && !entry.mirror.is_empty()
            {
                return Err(format!(
                    "[[registry]] number {}: a wildcard prefix needs a location",
                    index + 1
                ));
            }
        }
        for entry in &file.registry {
            entry.check()?;
        }
        // The longest prefix wins, whatever the order in the file.
        let mut entries = file.registry;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix().len()));
        Ok(Self { entries })
    }

    /// Hosts (with ports, where they have them) that the file names: the operator trusts them wherever they are.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        self.entries
            .iter()
            .filter(|entry| !entry.blocked)
            .flat_map(|entry| {
                let mirrors = entry.mirror.iter().map(|mirror| mirror.location.as_str());
                [entry.prefix.as_deref(), entry.location.as_deref()]
                    .into_iter()
                    .flatten()
                    .chain(mirrors)
            })
            .filter_map(|place| place.split('/').next())
            .filter(|host| !host.is_empty() && !host.starts_with('*'))
            .map(str::to_owned)
            .collect()
    }

    /// The places to ask, in order; the image's own name last (as rewritten).
    pub fn sources(&self, name: &ImageName) -> Result<Vec<Source>, ImageError> {
        let path = name.repository_path();
        let Some(entry) = self.entries.iter().find(|entry| entry.matches(&path)) else {
            return Ok(vec![Source {
                name: name.clone(),
                insecure: is_loopback(&name.registry),
            }]);
        };
        if entry.blocked {
            return Err(ImageError::Blocked {
                reference: name.to_string(),
                prefix: entry.prefix().to_owned(),
            });
        }
        let mut sources = Vec::new();
        for mirror in &entry.mirror {
            let by_digest = entry.mirror_by_digest_only
                || mirror.pull_from_mirror.as_deref() == Some("digest-only");
            let by_tag = mirror.pull_from_mirror.as_deref() == Some("tag-only");
            if (by_digest && name.digest.is_none()) || (by_tag && name.digest.is_some()) {
                continue;
            }
            sources.push(entry.rewritten(name, &mirror.location, mirror.insecure)?);
        }
        match &entry.location {
            Some(location) => sources.push(entry.rewritten(name, location, entry.insecure)?),
            None => sources.push(Source {
                name: name.clone(),
                insecure: entry.insecure || is_loopback(&name.registry),
            }),
        }
        Ok(sources)
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        let places = self
            .location
            .iter()
            .map(String::as_str)
            .chain(self.mirror.iter().map(|mirror| mirror.location.as_str()));
        for location in places {
            if location.is_empty() {
                return Err(format!(
                    "[[registry]] {:?}: a mirror has no location",
                    self.prefix()
                ));
            }
            if location.contains("://") {
                return Err(format!(
                    "[[registry]] {:?}: location {location:?} must not have a scheme (write insecure = true for plain HTTP)",
                    self.prefix()
                ));
            }
            // Any image below it must have a name.
            ImageName::parse(&format!("{}/x", location.trim_end_matches('/'))).map_err(
                |error| {
                    format!(
                        "[[registry]] {:?}: location {location:?}: {error}",
                        self.prefix()
                    )
                },
            )?;
        }
        let which = self
            .mirror
            .iter()
            .filter_map(|mirror| mirror.pull_from_mirror.as_deref());
        match which
            .into_iter()
            .find(|which| !matches!(*which, "all" | "digest-only" | "tag-only"))
        {
            Some(odd) => Err(format!(
                "[[registry]] {:?}: pull-from-mirror is {odd:?}, not all, digest-only or tag-only",
                self.prefix()
            )),
            None => Ok(()),
        }
    }

    fn prefix(&self) -> &str {
        self.prefix
            .as_deref()
            .or(self.location.as_deref())
            .unwrap_or_default()
    }

    fn matches(&self, path: &str) -> bool {
        let prefix = self.prefix();
        if let Some(domain) = prefix.strip_prefix("*.") {
            let host = path.split('/').next().unwrap_or_default();
            return host.len() > domain.len()
                && host.ends_with(domain)
                && host[..host.len() - domain.len()].ends_with('.');
        }
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
    }

    fn rewritten(
        &self,
        name: &ImageName,
        location: &str,
        insecure: bool,
    ) -> Result<Source, ImageError> {
        let path = name.repository_path();
        let prefix = self.prefix();
        let rest = if prefix.starts_with("*.") {
            path.split_once('/').map_or("", |(_, rest)| rest)
        } else {
            &path[prefix.len()..]
        };
        let joined = if rest.is_empty() {
            location.to_owned()
        } else {
            format!(
                "{}/{}",
                location.trim_end_matches('/'),
                rest.trim_start_matches('/')
            )
        };
        let name = name.moved(&joined)?;
        let insecure = insecure || is_loopback(&name.registry);
        Ok(Source { name, insecure })
    }
}

/// Registries on this machine speak plain HTTP more often than not, and nobody can listen in between.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.starts_with("127.")
        || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(conf: &str, image: &str) -> Vec<String> {
        let registries = Registries::parse(conf).expect("conf");
        registries
            .sources(&ImageName::parse(image).expect("image"))
            .expect("sources")
            .iter()
            .map(|source| source.name.to_string())
            .collect()
    }

    #[test]
    fn rewrites_and_mirrors() {
        let conf = r#"
            [[registry]]
            prefix = "gcr.io/knative-samples/helloworld-go"
            location = "samples.kinglet/helloworld"
            [[registry]]
            prefix = "gcr.io"
            location = "gcr.io"
            [[registry.mirror]]
            location = "mirror.test:5000/gcr"
            [[registry]]
            prefix = "*.corp.test"
            location = "hub.test"
        "#;
        assert_eq!(
            places(conf, "gcr.io/knative-samples/helloworld-go"),
            ["samples.kinglet/helloworld:latest"]
        );
        assert_eq!(
            places(conf, "gcr.io/a/b:1"),
            ["mirror.test:5000/gcr/a/b:1", "gcr.io/a/b:1"]
        );
        assert_eq!(
            places(conf, "gcr.io/knative-samples/helloworld-go2:1")[1],
            "gcr.io/knative-samples/helloworld-go2:1"
        );
        assert_eq!(places(conf, "x.corp.test/a:1"), ["hub.test/a:1"]);
        assert_eq!(places(conf, "quay.io/a:1"), ["quay.io/a:1"]);
    }

    #[test]
    fn blocked_and_broken() {
        let registries =
            Registries::parse("[[registry]]\nprefix=\"bad.test\"\nblocked=true").expect("conf");
        let error = registries
            .sources(&ImageName::parse("bad.test/x").expect("image"))
            .expect_err("blocked");
        assert!(error.to_string().contains("bad.test"));
        assert!(
            Registries::parse("[[registry]]\ninsecure=true")
                .expect_err("neither")
                .contains("neither prefix nor location")
        );
        let error = Registries::parse("[[registry]]\nprefix = 7\n").expect_err("a number");
        assert!(
            error.starts_with("line 2: ") && !error.contains('\n'),
            "{error}"
        );
        for (text, wanted) in [
            (
                "[[registry]]\nprefix=\"a.test\"\nlocation=\"https://b.test\"",
                "must not have a scheme",
            ),
            (
                "[[registry]]\nprefix=\"a.test\"\n[[registry.mirror]]\ninsecure=true",
                "has no location",
            ),
            (
                "[[registry]]\nprefix=\"a.test\"\n[[registry.mirror]]\nlocation=\"b.test\"\npull-from-mirror=\"often\"",
                "pull-from-mirror",
            ),
        ] {
            let error = Registries::parse(text).expect_err(text);
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn loopback_is_insecure() {
        let registries = Registries::default();
        for (image, insecure) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("ghcr.io/a/b", false),
        ] {
            assert_eq!(
                registries
                    .sources(&ImageName::parse(image).expect("image"))
                    .expect("sources")[0]
                    .insecure,
                insecure,
                "{image}"
            );
        }
    }
}
