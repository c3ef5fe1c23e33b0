//! Registry credentials from docker configuration documents.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::builtin::hex;

/// User and password per registry, or per path in one; printed without the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_path: BTreeMap<String, (String, String)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Adds the entries of a `.dockerconfigjson` (or the older `.dockercfg`) document.
    pub fn add_docker_config(&mut self, document: &[u8]) -> Result<(), String> {
        let value: serde_json::Value =
            serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let config: DockerConfig = if value.get("auths").is_some() {
            serde_json::from_value(value)
        } else {
            serde_json::from_value(value).map(|auths| DockerConfig { auths })
        }
        .map_err(|error| error.to_string())?;
        for (registry, auth) in config.auths {
            if let Some(pair) = auth.pair() {
                self.by_path.insert(registry_path(&registry), pair);
            }
        }
        Ok(())
    }

    /// Adds one user and password for a registry, or for a path below it.
    pub fn add(&mut self, registry: &str, user: &str, password: &str) {
        let pair = (user.to_owned(), password.to_owned());
        self.by_path.insert(registry_path(registry), pair);
    }

    /// A hash of the pair for a repository, by which an image's record knows it again.
    pub(crate) fn hash(&self, repository: &str) -> Option<String> {
        let (user, password) = self.find(repository)?;
        let mut hash = Sha256::new();
        for part in [repository, user, password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Some(hex(&hash.finalize()))
    }

    /// The pair for a repository (`host/path`): the entry with the longest path wins, as for a kubelet.
    pub fn find(&self, repository: &str) -> Option<(&str, &str)> {
        let wanted = registry_path(repository);
        let fits = |place: &&String| covers(place, &wanted);
        let (_, (user, password)) = self
            .by_path
            .iter()
            .filter(|(place, _)| fits(place))
            .max_by_key(|(place, _)| (place.matches('/').count(), place.len()))?;
        Some((user, password))
    }
}

impl Auth {
    fn pair(self) -> Option<(String, String)> {
        if let Some(encoded) = self.auth.filter(|text| !text.is_empty()) {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some((user.to_owned(), password.trim_end_matches('\0').to_owned()));
        }
        Some((self.username?, self.password?))
    }
}

/// `https://index.docker.io/v1/` and its kind, down to one spelling of host and path.
fn registry_path(registry: &str) -> String {
    let bare = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_end_matches('/');
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    // API versions, as docker writes them; not part of any repository.
    if matches!(path, "" | "v1" | "v2") {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

/// Same host (`*` stands for one label) and a leading part of the path.
fn covers(place: &str, wanted: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (wanted_host, wanted_path) = wanted.split_once('/').unwrap_or((wanted, ""));
    let labels = host.split('.').count() == wanted_host.split('.').count();
    let hosts = labels
        && host
            .split('.')
            .zip(wanted_host.split('.'))
            .all(|(label, wanted)| label == "*" || label == wanted);
    hosts
        && wanted_path
            .strip_prefix(path)
            .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_path.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_no_secret_in_debug() {
        let mut credentials = Credentials::default();
        credentials
            .add_docker_config(
                br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpzZWNyZXQ="}}}"#,
            )
            .expect("config");
        credentials
            .add_docker_config(br#"{"ghcr.io":{"username":"u","password":"p"}}"#)
            .expect("cfg");
        assert_eq!(
            credentials.find("docker.io/library/nginx"),
            Some(("user", "secret"))
        );
        assert_eq!(credentials.find("ghcr.io/a/b"), Some(("u", "p")));
        assert_eq!(credentials.find("quay.io/a"), None);
        assert!(!format!("{credentials:?}").contains("secret"));
        assert!(credentials.add_docker_config(b"{").is_err());
    }

    #[test]
    fn the_longest_path_wins() {
        let mut credentials = Credentials::default();
        let config = br#"{"auths":{"r.test":{"username":"all","password":""},"r.test/team":{"username":"team","password":""},"*.corp.test:5000":{"username":"corp","password":""}}}"#;
        credentials.add_docker_config(config).expect("config");
        for (repository, user) in [
            ("r.test/a", Some("all")),
            ("r.test/team/a", Some("team")),
            ("r.test/teams/a", Some("all")),
            ("x.corp.test:5000/a", Some("corp")),
            ("x.y.corp.test:5000/a", None),
        ] {
            assert_eq!(
                credentials.find(repository).map(|pair| pair.0),
                user,
                "{repository}"
            );
        }
    }
}
