//! Registry credentials from docker configuration documents.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use serde::Deserialize;

/// User and password per registry; printed without the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_registry: BTreeMap<String, (String, String)>,
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
        let value: serde_json::Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let config: DockerConfig = if value.get("auths").is_some() {
            serde_json::from_value(value)
        } else {
            serde_json::from_value(value).map(|auths| DockerConfig { auths })
        }
        .map_err(|error| error.to_string())?;
        for (registry, auth) in config.auths {
            if let Some(pair) = auth.pair() {
                self.by_registry.insert(host(&registry), pair);
            }
        }
        Ok(())
    }

    /// The pair for a registry host.
    pub fn find(&self, registry: &str) -> Option<(&str, &str)> {
        self.by_registry.get(&host(registry)).map(|(user, password)| (user.as_str(), password.as_str()))
    }
}

impl Auth {
    fn pair(self) -> Option<(String, String)> {
        if let Some(encoded) = self.auth.filter(|text| !text.is_empty()) {
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some((user.to_owned(), password.trim_end_matches('\0').to_owned()));
        }
        Some((self.username?, self.password?))
    }
}

/// `https://index.docker.io/v1/` and its kind, down to one host per registry.
fn host(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_registry.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_no_secret_in_debug() {
        let mut credentials = Credentials::default();
        credentials.add_docker_config(br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpzZWNyZXQ="}}}"#).expect("config");
        credentials.add_docker_config(br#"{"ghcr.io":{"username":"u","password":"p"}}"#).expect("cfg");
        assert_eq!(credentials.find("docker.io"), Some(("user", "secret")));
        assert_eq!(credentials.find("ghcr.io"), Some(("u", "p")));
        assert_eq!(credentials.find("quay.io"), None);
        assert!(!format!("{credentials:?}").contains("secret"));
        assert!(credentials.add_docker_config(b"{").is_err());
    }
}
